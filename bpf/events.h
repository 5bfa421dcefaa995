/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Passes packets to the agent through the ring buffer. */
#ifndef XG_EVENTS_H
#define XG_EVENTS_H

#include "counters.h"
#include "parse.h"
#include "tables.h"
#include "wire.h"

/*
 * Copies the packet into the scratch entry of this CPU. Returns false if the frame ends before the end of the packet.
 */
static __always_inline bool xg_copy_out(struct xg_scratch *scratch, const struct xg_packet *packet, __u64 length,
					void *end)
{
	const void *from = packet;
	void *to = scratch->packet;
	__u64 at;

	if (from + XG_HEADER_BYTES > end)
		return false;
	__builtin_memcpy(to, from, XG_HEADER_BYTES);
	if (length < XG_HEADER_BYTES + 8)
		return length == XG_HEADER_BYTES;
	for (int i = 0; i < XG_BODY_WORDS; i++) {
		at = XG_HEADER_BYTES + 8 * i;
		XG_KEEP(at);
		if (at + 8 > length)
			break;
		if (from + at + 8 > end)
			return false;
		*(xg_u64 *)(to + at) = *(const xg_u64 *)(from + at);
	}
	/*
	 * Fewer than eight bytes remain. The loop copies the last eight bytes of the packet, and copies some of these
	 * bytes a second time.
	 */
	at = length - 8;
	XG_KEEP(at);
	if (at > XG_DATAGRAM_BYTES - 8 || from + at + 8 > end)
		return false;
	*(xg_u64 *)(to + at) = *(const xg_u64 *)(from + at);
	return true;
}

static __always_inline void xg_describe(struct xg_scratch *scratch, __u8 kind, const void *addr, __be16 port,
					__u32 length)
{
	struct xg_event *event = &scratch->event;

	event->time = bpf_ktime_get_ns();
	xg_copy_address(event->addr, addr);
	event->port = port;
	event->length = length;
	event->kind = kind;
}

/* Writes to the ring buffer the event that xg_describe() filled in, and the packet from the scratch entry. */
static __always_inline void xg_hand_over(struct xg_scratch *scratch, bool whole)
{
	/*
	 * Reads the length from memory again, because the verifier would follow each possible value of the earlier
	 * variable separately.
	 */
	__u64 length = scratch->event.length;

	XG_KEEP(length);
	if (!whole || length > XG_DATAGRAM_BYTES) {
		xg_count(XG_COUNT_news_lost);
		return;
	}
	XG_KEEP(length);
	if (xg_output(&scratch->event, sizeof(scratch->event) + length))
		xg_count(XG_COUNT_news_lost);
}

#endif
