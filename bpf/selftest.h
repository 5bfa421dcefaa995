/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Recognizes the loader's self-test frame. The loader makes a self-test frame pass through a hook. The program at the
 * hook counts and drops the frame.
 *
 * Programs of other owners treat a self-test frame like a frame of the agent, because a self-test frame is a UDP packet
 * of the agent's IP version, to or from the agent's address. The port of a self-test frame differs from the agent's
 * port, so that the data plane need not look for self-test frames among the agent's own packets. The destination of the
 * frame is the MAC address of the nearest bridge (IEEE 802.1D), which no bridge forwards.
 */
#ifndef XG_SELFTEST_H
#define XG_SELFTEST_H

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "parse.h"

/* Packs four characters into a 32-bit word, in memory order. */
#define XG_TEXT(a, b, c, d) ((__u32)(a) | (__u32)(b) << 8 | (__u32)(c) << 16 | (__u32)(d) << 24)

static __always_inline bool xg_is_selftest(const void *data, const void *end)
{
	const struct ethhdr *eth = data;
	const xg_u16 *to = (const xg_u16 *)eth->h_dest;
	const xg_u32 *text;

	if ((const void *)(eth + 1) > end || to[0] != bpf_htons(0x0180) || to[1] != bpf_htons(0xc200) ||
	    to[2] != bpf_htons(0x000e))
		return false;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		text = data + sizeof(*eth) + sizeof(struct iphdr) + sizeof(struct udphdr);
	else if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		text = data + sizeof(*eth) + sizeof(struct ipv6hdr) + sizeof(struct udphdr);
	else
		return false;
	if ((const void *)(text + 5) > end)
		return false;
	return text[0] == XG_TEXT('X', 'D', 'P', ' ') && text[1] == XG_TEXT('G', 'o', 's', 's') &&
	       text[2] == XG_TEXT('i', 'p', ' ', 's') && text[3] == XG_TEXT('e', 'l', 'f', '-') &&
	       text[4] == XG_TEXT('t', 'e', 's', 't');
}

#endif
