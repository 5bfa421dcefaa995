/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Empty: only BCC's stack traces need it. */
