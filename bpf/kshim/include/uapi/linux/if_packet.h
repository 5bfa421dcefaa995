/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* This header is empty, because only programs on sockets need its content. */
