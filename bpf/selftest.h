/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The loader's self-test frame. The loader makes one travel through a hook; the program there counts and drops it. The
 * frame goes to the address of the nearest bridge (IEEE 802.1D), which no bridge forwards, under an EtherType for local
 * experiments (IEEE 802), which nobody listens to.
 */
#ifndef XG_SELFTEST_H
#define XG_SELFTEST_H

#define XG_SELFTEST_TYPE 0x88b5

/* Four characters as they lie in memory. */
#define XG_TEXT(a, b, c, d) ((__u32)(a) | (__u32)(b) << 8 | (__u32)(c) << 16 | (__u32)(d) << 24)

static __always_inline bool xg_is_selftest(const void *data, const void *end)
{
	const struct ethhdr *eth = data;
	const xg_u16 *to = (const xg_u16 *)eth->h_dest;
	const xg_u32 *text = (const xg_u32 *)(eth + 1);

	if ((const void *)(text + 5) > end || eth->h_proto != bpf_htons(XG_SELFTEST_TYPE))
		return false;
	if (to[0] != bpf_htons(0x0180) || to[1] != bpf_htons(0xc200) || to[2] != bpf_htons(0x000e))
		return false;
	return text[0] == XG_TEXT('X', 'D', 'P', ' ') && text[1] == XG_TEXT('G', 'o', 's', 's') &&
	       text[2] == XG_TEXT('i', 'p', ' ', 's') && text[3] == XG_TEXT('e', 'l', 'f', '-') &&
	       text[4] == XG_TEXT('t', 'e', 's', 't');
}

#endif
