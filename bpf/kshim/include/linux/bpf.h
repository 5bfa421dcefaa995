/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* This header is empty, because BCC provides its own version of the header. */
