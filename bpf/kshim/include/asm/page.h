/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* BCC states the size of a ring buffer in pages. The kernel accepts any power of two that is a multiple of its page. */
#define PAGE_SIZE 4096
