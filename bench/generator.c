/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The load: sends ready-made frames from a map, one after the other. Run with BPF_PROG_TEST_RUN and live frames, whose
 * pages come back without being reset: so every byte is written anew, each time.
 */
#include <uapi/linux/bpf.h>

#define WORDS (FRAME_BYTES / 8)

/* Words first: the compiler copies bytes one by one otherwise. */
struct frame {
	__u64 words[WORDS];
	__u8 rest[8];
};

BPF_TABLE("array", u32, struct frame, frames, FRAMES); /* a power of two */
BPF_ARRAY(cursor, u32, 1);
BPF_DEVMAP(way_out, 1);

int generate(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data;
	__u8 *end = (__u8 *)(long)ctx->data_end;
	__u32 zero = 0, index;
	struct frame *frame;
	__u32 *next = cursor.lookup(&zero);

	if (!next || data + FRAME_BYTES > end)
		return XDP_ABORTED;
	index = (*next)++ & (FRAMES - 1);
	frame = frames.lookup(&index);
	if (!frame)
		return XDP_ABORTED;
	__builtin_memcpy((__u64 *)data, frame->words, sizeof(frame->words));
#pragma unroll
	for (int i = 0; i < FRAME_BYTES % 8; i++)
		data[8 * WORDS + i] = frame->rest[i];
	return way_out.redirect_map(0, 0);
}
