/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * This directory replaces those kernel headers that BCC includes and the data plane needs. The variable
 * BCC_KERNEL_SOURCE names this directory to BCC, so a host needs no package with the headers of its kernel. All other
 * headers come from the package linux-libc-dev. BCC makes every program include this file first.
 */
#ifndef XG_KSHIM_KCONFIG_H
#define XG_KSHIM_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1

#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef unsigned long size_t;
typedef unsigned long uintptr_t;
typedef _Bool bool;
#define true 1
#define false 0

#endif
