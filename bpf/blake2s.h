/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Keyed BLAKE2s-128 over one block of 64 bytes (RFC 7693). The key fills a block of its own; user space keeps the
 * state after that block (xg_key.midstate), so a packet costs exactly one compression. The rounds are written out:
 * with constant indices the verifier knows every place.
 */
#ifndef XG_BLAKE2S_H
#define XG_BLAKE2S_H

/*
 * The words are worked on in 64 bits, of which only the lower half counts: that way nothing but this has to clear the
 * upper one ("le32" does, on a little-endian machine). The compiler that BCC brings has no 32-bit instructions.
 */
static __always_inline __u64 xg_rotate(__u64 word, const int bits)
{
	__u64 low = word;

	asm("%0 = le32 %0\n\t%0 >>= %1" : "+r"(low) : "i"(bits));
	return low | word << (32 - bits);
}

/*
 * Volatile: each word has its place on the stack and is there between two mixings. Left to itself the compiler spills
 * so much of block and work that the stack of 512 bytes is too small.
 */
static __always_inline void xg_mix(volatile __u32 *a_at, volatile __u32 *b_at, volatile __u32 *c_at,
				   volatile __u32 *d_at, __u64 x, __u64 y)
{
	__u64 a = *a_at + x, b = *b_at, c = *c_at, d = *d_at;

	a += b;
	d = xg_rotate(d ^ a, 16);
	c += d;
	b = xg_rotate(b ^ c, 12);
	a += b + y;
	*a_at = a;
	d = xg_rotate(d ^ a, 8);
	*d_at = d;
	c += d;
	*c_at = c;
	b = xg_rotate(b ^ c, 7);
	*b_at = b;
}

#define XG_MIX(a, b, c, d, x, y) xg_mix(&v[a], &v[b], &v[c], &v[d], m[x], m[y])

/* Section 3.1: the columns, then the diagonals; the arguments are a row of the schedule of section 2.7. */
#define XG_ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15)                                 \
	do {                                                                                                           \
		XG_MIX(0, 4, 8, 12, s0, s1);                                                                           \
		XG_MIX(1, 5, 9, 13, s2, s3);                                                                           \
		XG_MIX(2, 6, 10, 14, s4, s5);                                                                          \
		XG_MIX(3, 7, 11, 15, s6, s7);                                                                          \
		XG_MIX(0, 5, 10, 15, s8, s9);                                                                          \
		XG_MIX(1, 6, 11, 12, s10, s11);                                                                        \
		XG_MIX(2, 7, 8, 13, s12, s13);                                                                         \
		XG_MIX(3, 4, 9, 14, s14, s15);                                                                         \
	} while (0)

/* The first 16 bytes of the digest of key block and ``block``, the last one. */
static __always_inline void xg_blake2s(const __u32 midstate[8], const void *block, __u32 digest[4])
{
	const volatile xg_u32 *m = block;
	volatile __u32 v[16];

#pragma unroll
	for (int i = 0; i < 8; i++)
		v[i] = midstate[i];
	v[8] = 0x6A09E667;
	v[9] = 0xBB67AE85;
	v[10] = 0x3C6EF372;
	v[11] = 0xA54FF53A;
	v[12] = 0x510E527F ^ 128; /* bytes hashed, the key's block included */
	v[13] = 0x9B05688C;
	v[14] = ~0x1F83D9ABU; /* the last block */
	v[15] = 0x5BE0CD19;

	XG_ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	XG_ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
	XG_ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
	XG_ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
	XG_ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
	XG_ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
	XG_ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
	XG_ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
	XG_ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
	XG_ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);

#pragma unroll
	for (int i = 0; i < 4; i++)
		digest[i] = midstate[i] ^ v[i] ^ v[i + 8];
}

#endif
