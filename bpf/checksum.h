/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The Internet checksum (RFC 1071). Sums have 64 bits. The functions fold a sum repeatedly until no fold can produce
 * another carry. With a single fold, about one header in ten thousand would get a wrong checksum.
 */
#ifndef XG_CHECKSUM_H
#define XG_CHECKSUM_H

#include "parse.h"
#include "wire.h"

/* Folds a sum to 16 bits; the result is not complemented yet. */
static __always_inline __u16 xg_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Folds a sum to 32 bits, because bpf_l4_csum_replace() takes a difference of 32 bits. */
static __always_inline __u32 xg_fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum;
}

/*
 * Returns the content of the UDP checksum field for ``sum``. A result of 0 becomes 0xffff, as 0 means "no checksum"
 * (RFC 768).
 */
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

/* Returns the sum of all bytes of the packet that lie within the frame. */
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
	/* Adds the remaining bytes: reads the last eight bytes, and drops those that the sum already contains. */
	return sum + xg_halves(*(const xg_u64 *)(from + at) >> (64 - 8 * left));
}

/* Returns the checksum of an IP header without options, whose checksum field must be 0. */
static __always_inline __sum16 xg_ip_checksum(const struct iphdr *ip)
{
	return ~xg_fold(xg_sum_words(ip, 5));
}

/* Returns the number to add to a sum when the value ``from`` in the data becomes ``to``. */
static __always_inline __u64 xg_sum_change(__u32 from, __u32 to)
{
	return (__u64)(__u32)~from + to;
}

#endif
