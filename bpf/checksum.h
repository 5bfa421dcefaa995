/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The Internet checksum (RFC 1071). Sums are kept in 64 bits and folded as often as a carry can come out: folding
 * once is wrong for one header in some ten thousand.
 */
#ifndef XG_CHECKSUM_H
#define XG_CHECKSUM_H

#include "parse.h"
#include "wire.h"

/* To 16 bits, still not complemented. */
static __always_inline __u16 xg_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* To 32 bits, as bpf_l4_csum_replace wants a difference. */
static __always_inline __u32 xg_fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum;
}

/* What a UDP header holds: 0 would mean "none" (RFC 768). */
static __always_inline __sum16 xg_udp_checksum(__u64 sum)
{
	__u16 check = ~xg_fold(sum);

	return check ? check : 0xffff;
}

static __always_inline __u64 xg_sum_words(const void *from, int words)
{
	const xg_u32 *word = from;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		sum += word[i];
	return sum;
}

static __always_inline __u64 xg_halves(__u64 word)
{
	return (word & 0xffffffff) + (word >> 32);
}

/* The sum of the packet's bytes. What lies beyond the frame's end is not there. */
static __always_inline __u64 xg_sum_packet(const struct xg_packet *packet, __u64 length, void *end)
{
	__u64 sum = xg_sum_words(packet, XG_HEADER_BYTES / 4);
	const void *from = packet;
	__u64 at, left = length & 7;

	if (length < XG_HEADER_BYTES + 8)
		return sum;
	for (int i = 0; i < XG_BODY_WORDS; i++) {
		at = XG_HEADER_BYTES + 8 * i;
		XG_KEEP(at);
		if (at + 8 > length || from + at + 8 > end)
			break;
		sum += xg_halves(*(const xg_u64 *)(from + at));
	}
	at = length - 8;
	XG_KEEP(at);
	if (!left || at > XG_DATAGRAM_BYTES - 8 || from + at + 8 > end)
		return sum;
	/* The last eight bytes, less those summed already. */
	return sum + xg_halves(*(const xg_u64 *)(from + at) >> (64 - 8 * left));
}

/* The header without options, its checksum field included or 0. */
static __always_inline __sum16 xg_ip_checksum(const struct iphdr *ip)
{
	return ~xg_fold(xg_sum_words(ip, 5));
}

/* What replacing one value by another adds to a sum. */
static __always_inline __u64 xg_sum_change(__u32 from, __u32 to)
{
	return (__u64)(__u32)~from + to;
}

#endif
