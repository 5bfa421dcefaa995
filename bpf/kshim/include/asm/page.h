/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* BCC sizes ring buffers in pages; the kernel takes any power of two that is a multiple of its own page. */
#define PAGE_SIZE 4096
