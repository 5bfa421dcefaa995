/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Empty: only programs on sockets need it. */
