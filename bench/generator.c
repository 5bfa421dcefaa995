/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The load generator: sends ready-made frames from a map, one after the other. It runs by BPF_PROG_TEST_RUN with live
 * frames. The kernel reuses the pages of sent frames without a reset, so the program writes every byte of each frame.
 */
#include <uapi/linux/bpf.h>

#define WORDS (FRAME_BYTES / 8)
/* Maximum words per copy. For more words, LLVM would call the function memcpy(), which does not exist in BPF. */
#define AT_ONCE 128
#define FIRST (WORDS < AT_ONCE ? WORDS : AT_ONCE)

/* Maximum reads of the clock, about 30 ns each, before a frame is sent even if it is not due yet. */
#define WAIT_LOOKS 256

/* A frame as words and the remaining bytes. Without the words, the compiler would copy every byte separately. */
struct frame {
	__u64 words[WORDS];
	__u8 rest[8];
};

BPF_TABLE("array", u32, struct frame, frames, FRAMES); /* a power of two */
struct position {
	__u64 gap; /* minimum ns between two frames, limited by WAIT_LOOKS; 0: as fast as possible */
	__u64 due; /* time of the next frame, CLOCK_MONOTONIC in ns */
	__u32 next;
	__u32 zero;
};
BPF_ARRAY(position, struct position, 1);
BPF_DEVMAP(way_out, 1);

static __always_inline void wait_for_turn(struct position *at)
{
	__u64 now = 0;

	for (int i = 0; i < WAIT_LOOKS; i++) {
		now = bpf_ktime_get_ns();
		if (now >= at->due)
			break;
	}
	at->due = now + at->gap;
}

int generate(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data;
	__u8 *end = (__u8 *)(long)ctx->data_end;
	__u32 zero = 0, index;
	struct frame *frame;
	struct position *at = position.lookup(&zero);

	if (!at || data + FRAME_BYTES > end)
		return XDP_ABORTED;
	if (at->gap)
		wait_for_turn(at);
	index = at->next++ & (FRAMES - 1);
	frame = frames.lookup(&index);
	if (!frame)
		return XDP_ABORTED;
	__builtin_memcpy((__u64 *)data, frame->words, 8 * FIRST);
	__builtin_memcpy((__u64 *)data + FIRST, frame->words + FIRST, 8 * (WORDS - FIRST));
#pragma unroll
	for (int i = 0; i < FRAME_BYTES % 8; i++)
		data[8 * WORDS + i] = frame->rest[i];
	return way_out.redirect_map(0, 0);
}
