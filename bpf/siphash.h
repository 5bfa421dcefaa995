/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Computes the MAC of a packet, which is SipHash-2-4 with a tag of 128 bits (Aumasson and Bernstein, "SipHash: a fast
 * short-input PRF", 2012). The tag of 128 bits is an option of the reference implementation of SipHash. The MAC
 * covers the signed block and all bytes after the relay area. The function reads the words of the packet without
 * swapping bytes, so the function works only on a little-endian machine.
 */
#ifndef XG_SIPHASH_H
#define XG_SIPHASH_H

#include "parse.h"
#include "wire.h"

/* Maximum number of whole 8-byte words after the relay area. */
#define XG_SEALED_WORDS ((XG_DATAGRAM_BYTES - XG_SEALED_AT) / 8)

struct xg_sip {
	/* The words v0 to v3 of the SipHash paper. */
	__u64 a, b, c, d;
};

static __always_inline __u64 xg_rotate(__u64 word, const int bits)
{
	return word << bits | word >> (64 - bits);
}

static __always_inline void xg_sip_round(struct xg_sip *v)
{
	v->a += v->b;
	v->c += v->d;
	v->b = xg_rotate(v->b, 13) ^ v->a;
	v->d = xg_rotate(v->d, 16) ^ v->c;
	v->a = xg_rotate(v->a, 32);
	v->c += v->b;
	v->a += v->d;
	v->b = xg_rotate(v->b, 17) ^ v->c;
	v->d = xg_rotate(v->d, 21) ^ v->a;
	v->c = xg_rotate(v->c, 32);
}

static __always_inline void xg_sip_rounds(struct xg_sip *v)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		xg_sip_round(v);
}

static __always_inline void xg_sip_word(struct xg_sip *v, __u64 word)
{
	v->d ^= word;
	xg_sip_round(v);
	xg_sip_round(v);
	v->a ^= word;
}

static __always_inline void xg_sip_begin(struct xg_sip *v, const __u8 key[16])
{
	__u64 low = ((const xg_u64 *)key)[0], high = ((const xg_u64 *)key)[1];

	v->a = 0x736f6d6570736575ULL ^ low;
	v->b = 0x646f72616e646f6dULL ^ high ^ 0xee;
	v->c = 0x6c7967656e657261ULL ^ low;
	v->d = 0x7465646279746573ULL ^ high;
}

static __always_inline void xg_sip_end(struct xg_sip *v, __u64 tag[2])
{
	v->c ^= 0xee;
	xg_sip_rounds(v);
	tag[0] = v->a ^ v->b ^ v->c ^ v->d;
	v->b ^= 0xdd;
	xg_sip_rounds(v);
	tag[1] = v->a ^ v->b ^ v->c ^ v->d;
}

static __always_inline void xg_sip_block(struct xg_sip *v, const struct xg_packet *packet)
{
	const xg_u64 *block = (const xg_u64 *)packet;

#pragma unroll
	for (int i = 0; i < XG_BLOCK_BYTES / 8; i++)
		xg_sip_word(v, block[i]);
}

/*
 * Computes the tag of a packet without a body. The function has no loop over a length, so the caller may use the packet
 * afterwards.
 */
static __always_inline void xg_siphash_header(const __u8 key[16], const struct xg_packet *packet, __u64 tag[2])
{
	struct xg_sip v;

	xg_sip_begin(&v, key);
	xg_sip_block(&v, packet);
	xg_sip_word(&v, *(const xg_u32 *)packet->salt | (XG_HEADER_BYTES - XG_SEALED_AT + XG_BLOCK_BYTES) * 1ULL << 56);
	xg_sip_end(&v, tag);
}

/*
 * Computes the tag of a packet of ``length`` bytes, whose header lies within the frame. Returns false if the frame
 * ends before the end of the packet.
 *
 * After the loop the verifier has a different state of the packet's pointer and length for every length. The verifier
 * follows each length separately, unless the code after the loop uses neither the packet nor its length. To avoid these
 * separate paths, this function reads the last word before the loop, and callers locate the packet again after the
 * call.
 */
static __always_inline bool xg_siphash(const __u8 key[16], const struct xg_packet *packet, __u64 length, void *end,
				       __u64 tag[2])
{
	__u64 at = length - 8, last, left = (length - XG_SEALED_AT) & 7;
	const void *from = packet;
	struct xg_sip v;

	/* The last word of SipHash: the bytes after the last whole word, and the number of all bytes. */
	XG_KEEP(at);
	if (at > XG_DATAGRAM_BYTES - 8 || from + at + 8 > end)
		return false;
	last = *(const xg_u64 *)(from + at);
	last = left ? last >> (64 - 8 * left) : 0;
	last |= (length - XG_SEALED_AT + XG_BLOCK_BYTES) << 56;

	xg_sip_begin(&v, key);
	xg_sip_block(&v, packet);
	for (int i = 0; i < XG_SEALED_WORDS; i++) {
		at = XG_SEALED_AT + 8 * i;
		XG_KEEP(at);
		if (at + 8 > length)
			break;
		if (from + at + 8 > end)
			return false;
		xg_sip_word(&v, *(const xg_u64 *)(from + at));
	}
	xg_sip_word(&v, last);
	xg_sip_end(&v, tag);
	return true;
}

#endif
