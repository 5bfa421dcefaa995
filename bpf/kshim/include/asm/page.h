/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * BCC needs the size of a page, because a BCC program states the size of a ring buffer in pages. The kernel accepts
 * any size that is a power of two and a multiple of the kernel's page size.
 */
#define PAGE_SIZE 4096
