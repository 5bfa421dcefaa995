/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * BCC needs the size of a page, because it takes the size of a ring buffer as a number of pages. The kernel accepts any
 * power of two that is a multiple of its page.
 */
#define PAGE_SIZE 4096
