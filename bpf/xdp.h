/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The data plane in XDP. To relay a rumor, xg_ingress() redirects the frame to a devmap as a broadcast. Every entry of
 * this devmap refers to the agent's interface. xg_readdress() addresses each copy to the next target of the ring.
 * After xg_ingress() has returned, the kernel runs the egress program xg_readdress() on all copies in the queue of the
 * device. Therefore xg_ingress() stores in the packet all values that xg_readdress() needs.
 */
#ifndef XG_XDP_H
#define XG_XDP_H

#include "answer.h"
#include "checksum.h"
#include "counters.h"
#include "events.h"
#include "parse.h"
#include "receive.h"
#include "relay.h"
#include "selftest.h"
#include "tables.h"

/* Passes the packet to the agent unchanged. */
static __always_inline void xg_tell(struct xdp_md *ctx, bool v6, __u8 kind)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct xg_scratch *scratch = xg_scratch();
	const struct xg_packet *packet;
	struct xg_frame frame;
	__u8 source[16];

	packet = xg_locate(&frame, data, end, v6);
	if (!scratch || !packet)
		return;
	xg_source_of(&frame, source);
	xg_describe(scratch, kind, source, frame.udp->source, frame.length);
	xg_hand_over(scratch, xg_copy_out(scratch, packet, frame.length, end));
}

/*
 * Returns whether the UDP checksum is half done (CHECKSUM_PARTIAL), so that it is not valid yet. A stack that leaves
 * the rest of the checksum to the device sends frames with a half-done checksum over veth or virtio. ``sum`` is the
 * sum of all bytes except the addresses and the checksum.
 */
static __always_inline bool xg_is_half(const struct xg_frame *frame, __u64 sum)
{
	sum += frame->v6 ? xg_sum_words(&frame->ip6->saddr, 8) : xg_sum_words(&frame->ip->saddr, 2);
	return frame->udp->check && xg_fold(sum + frame->udp->check) != 0xffff;
}

/*
 * Sets all fields that are equal in all copies of the rumor, and redirects the frame to the devmap.
 *
 * The function writes an intermediate result to the checksum field: the sum, not complemented, of all bytes except
 * the target's address and port. The sum already contains the agent's port as source port, although only the egress
 * program writes the source port. In native mode the copies get a complete checksum, even if the received frame had a
 * half-done checksum. In generic mode a half-done checksum must stay half done, because the skb already requests the
 * rest of the checksum from the device. The fanout byte tells the egress program whether the checksum is half done.
 */
static __always_inline int xg_relay(struct xdp_md *ctx, const struct xg_config *local, bool v6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 datagram, pseudo;
	struct xg_packet *packet;
	struct xg_frame frame;
	bool wide, half;
	__u32 before;

	packet = xg_locate(&frame, data, end, v6);
	if (!packet)
		return XDP_DROP;
	if (!packet->ttl) {
		xg_count(XG_COUNT_relay_ttl);
		return XDP_DROP;
	}
	if (!local->ring_size) {
		xg_count(XG_COUNT_relay_alone);
		return XDP_DROP;
	}
	wide = xg_is_wide(packet->type);
	pseudo = (__u64)frame.udp->len + bpf_htons(IPPROTO_UDP);
	datagram = (__u64)frame.udp->len + xg_sum_packet(packet, frame.length, end);
	half = local->flags & XG_GENERIC && xg_is_half(&frame, pseudo + datagram + frame.udp->source + frame.udp->dest);
	before = xg_relay_area(packet);
	packet->ttl--;
	if (packet->hops != 255)
		packet->hops++;
	packet->fanout = 0;
	datagram += xg_sum_change(before, xg_relay_area(packet)) + local->port;
	packet->fanout = half;
	frame.udp->check = xg_fold(pseudo + xg_sum_words(local->addr, 4) + (half ? 0 : datagram));
	xg_count(XG_COUNT_relay);
	xg_count_more(XG_COUNT_copy_due, wide ? XG_WIDE : XG_AMOUNT);
	return xg_broadcast(wide);
}

/*
 * Turns the frame of an edge probe into the frame of its answer, and redirects it to the agent's interface. In generic
 * mode a half-done checksum is right for the answer, too (xg_relay() says why it must stay half done).
 *
 * The program does not return XDP_TX, although it sends the frame back. A veth hands a frame of XDP_TX to its peer only
 * if the peer has an XDP program of its own, while GRO at the peer is enough for a redirected frame (veth_xdp_flush() of
 * drivers/net/veth.c). So an answer needs nothing but what a copy needs, which the loader's self-test has proved. The
 * frame goes through the same device map as the copies, because the kernel runs the egress program of the first frame of
 * a device queue on all frames of this queue (bq_enqueue() of kernel/bpf/devmap.c).
 */
static __always_inline int xg_answer(struct xdp_md *ctx, const struct xg_config *local, bool v6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct xg_packet *packet;
	struct xg_frame frame;
	__u64 sum, pseudo;
	bool half;

	packet = xg_locate(&frame, data, end, v6);
	if (!packet)
		goto failed;
	pseudo = (__u64)frame.udp->len + bpf_htons(IPPROTO_UDP);
	sum = pseudo + frame.udp->len + frame.udp->source + frame.udp->dest;
	half = local->flags & XG_GENERIC && xg_is_half(&frame, sum + xg_sum_words(packet, XG_HEADER_WORDS));
	if (!xg_acknowledge(packet, local))
		goto failed;
	xg_turn_round(&frame);
	if (!half) {
		sum += xg_sum_words(packet, XG_HEADER_WORDS);
		sum += v6 ? xg_sum_words(&frame.ip6->saddr, 8) : xg_sum_words(&frame.ip->saddr, 2);
		frame.udp->check = xg_udp_checksum(sum);
	}
	if (xg_send_back() == XDP_REDIRECT)
		return XDP_REDIRECT;

failed:
	xg_count(XG_COUNT_answer_failed);
	return XDP_DROP;
}

static __always_inline int xg_ingress(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct xg_config *local = xg_local();
	struct xg_scratch *scratch = xg_scratch();
	const struct xg_outcome *outcome;
	struct xg_rumor rumor = {};
	struct xg_frame frame;
	enum xg_whose whose;
	__u32 verdict;

	if (!local || !scratch)
		return XDP_PASS;
	whose = xg_parse(&frame, data, end, end - data, local, scratch->source.addr);
	if (whose == XG_OTHERS) {
		if (!xg_is_selftest(data, end))
			return XDP_PASS;
		xg_count(XG_COUNT_selftest_ingress);
		return XDP_DROP;
	}
	rumor.local = local;
	rumor.frame = &frame;
	rumor.packet = (void *)(frame.udp + 1);
	rumor.length = frame.length;
	rumor.end = end;
	verdict = xg_screen(scratch, local, whose == XG_ODD, frame.length, (void *)(rumor.packet + 1) <= end);
	if (verdict == XG_GO_ON)
		verdict = xg_receive(&rumor);
	if (xg_judge(scratch, &rumor, &verdict))
		return XG_PASSES(verdict) ? XDP_PASS : XDP_DROP;
	outcome = &scratch->outcome;
	verdict = outcome->verdict;
	if (verdict == XG_COUNT_answer)
		return xg_answer(ctx, local, frame.v6);
	if (outcome->news || XG_ASKS(verdict))
		xg_tell(ctx, frame.v6, outcome->news ? XG_EVENT_NEWS : XG_EVENT_ASK);
	return XG_ASKS(verdict) ? XDP_DROP : xg_relay(ctx, local, frame.v6);
}

/*
 * Returns the next target that may get a copy of this rumor, or null if the function has examined all targets of the
 * ring for this rumor.
 */
static __always_inline const struct xg_target *xg_next_target(struct xg_scratch *scratch, const struct xg_config *local,
							      const struct xg_way *way)
{
	__u32 walked = scratch->walked;
	__u64 cursor = scratch->cursor;
	const struct xg_target *target = 0;

	for (int i = 0; i < XG_RING; i++) {
		if (walked >= local->ring_size) {
			target = 0;
			break;
		}
		walked++;
		target = xg_find_target(xg_step(local, &cursor));
		if (!target || xg_eligible(target, way))
			break;
	}
	scratch->cursor = cursor;
	scratch->walked = walked;
	return target;
}

/* Writes the addresses and the checksums of one copy. */
static __always_inline void xg_address(struct xg_frame *frame, const struct xg_config *local,
				       const struct xg_target *target, const struct xg_nexthop *hop, bool half)
{
	__u64 sum = frame->udp->check + xg_sum_words(target->addr, 4);

	xg_copy_mac(frame->eth->h_dest, hop->dst);
	xg_copy_mac(frame->eth->h_source, hop->src);
	if (frame->v6) {
		frame->ip6->hop_limit = XG_HOP_LIMIT;
		xg_copy_address(&frame->ip6->saddr, local->addr);
		xg_copy_address(&frame->ip6->daddr, target->addr);
	} else {
		frame->ip->ttl = XG_HOP_LIMIT;
		frame->ip->saddr = xg_mapped(local->addr);
		frame->ip->daddr = xg_mapped(target->addr);
		frame->ip->check = 0;
		frame->ip->check = xg_ip_checksum(frame->ip);
	}
	frame->udp->source = local->port;
	frame->udp->dest = target->port;
	frame->udp->check = half ? xg_fold(sum) : xg_udp_checksum(sum + target->port);
}

/*
 * Decides what happens to a frame for which no target is left: returns true if the program must send the frame to the
 * last target again, and false if the program must drop the frame. The repeated frame makes the kernel signal the
 * driver to send the frames that wait in the driver.
 *
 * The kernel hands the frames of a device queue to the driver in batches, and signals the driver to send only with the
 * last batch (XDP_XMIT_FLUSH). If this program drops all frames of the last batch, the driver gets no signal, and the
 * copies of the earlier batches wait in the driver's ring until another frame arrives. The last frame of the last
 * batch is always the last frame of a rumor, so the function returns true only for the last frame of a rumor.
 */
static __always_inline bool xg_kick(const struct xg_scratch *scratch, const struct xg_packet *packet, bool v6,
				    __u32 ifindex)
{
	return scratch->waiting && !scratch->flushing &&
	       scratch->places == (xg_is_wide(packet->type) ? XG_WIDE : XG_AMOUNT) &&
	       xg_is_mapped(scratch->last.addr) != v6 && scratch->last_hop.ifindex == ifindex;
}

/*
 * The egress program, which the kernel runs for each frame of a device queue. A frame is one copy of a rumor, which the
 * program addresses to a target or drops, or the answer to an edge probe, which passes.
 */
static __always_inline int xg_readdress(struct xdp_md *ctx, __u32 ifindex)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct xg_config *local = xg_local();
	struct xg_scratch *scratch = xg_scratch();
	const struct xg_target *target;
	struct xg_packet *packet;
	struct xg_nexthop hop;
	struct xg_frame frame;
	struct xg_way way;
	__u64 rumor;
	bool half;

	if (!local || !scratch)
		return XDP_DROP;
	if (data + sizeof(struct ethhdr) > end)
		return XDP_DROP;
	packet = xg_locate(&frame, data, end, ((struct ethhdr *)data)->h_proto == bpf_htons(ETH_P_IPV6));
	if (!packet)
		return XDP_DROP;
	/* An answer is addressed already. xg_watch_flush() compares the number of all frames. */
	if (packet->type == XG_EDGE_ACK)
		goto pass;

	half = packet->fanout;
	packet->fanout = 0;
	/* The copies of one rumor are neighbours in the device queue, so another MAC means that another rumor begins. */
	rumor = *(const xg_u64 *)packet->mac;
	if (rumor != scratch->rumor) {
		scratch->rumor = rumor;
		scratch->copies = 0;
		scratch->walked = 0;
		scratch->places = 0;
	}
	scratch->places++;
	xg_copy_address(way.origin.addr, packet->origin);
	way.origin.port = packet->port;
	xg_source_of(&frame, way.source.addr);
	way.source.port = frame.udp->source;
	way.v6 = frame.v6;
	if (scratch->copies >= xg_copies_of(local, packet->type))
		goto surplus;
	target = xg_next_target(scratch, local, &way);
	if (!target)
		goto surplus;
	scratch->copies++;
	if (!xg_next_hop(ctx, local, target, frame.v6, ifindex, &hop)) {
		xg_count(XG_COUNT_copy_unresolved);
		xg_describe(scratch, XG_EVENT_UNRESOLVED, target->addr, target->port, frame.length);
		xg_hand_over(scratch, xg_copy_out(scratch, packet, frame.length, end));
		goto unused;
	}
	scratch->last = *target;
	scratch->last_hop = hop;
	xg_count(XG_COUNT_copy);
	goto address;

surplus:
	xg_count(XG_COUNT_copy_surplus);
unused:
	if (!xg_kick(scratch, packet, frame.v6, ifindex))
		return XDP_DROP;
	xg_count(XG_COUNT_copy_again);
address:
	xg_address(&frame, local, &scratch->last, &scratch->last_hop, half);
pass:
	/* Generic XDP has no device queue. */
	if (!(local->flags & XG_GENERIC))
		scratch->flushing++;
	return XDP_PASS;
}

/*
 * Maximum number of frames that the kernel passes to the driver in one flush of a device queue (DEV_MAP_BULK_SIZE of
 * kernel/bpf/devmap.c).
 */
#define XG_FLUSH 16

/*
 * The program at the tracepoint xdp_devmap_xmit(from, to, sent, drops, err), include/trace/events/xdp.h. The kernel
 * flushes a device queue on the same CPU and in the same call in which it runs xg_readdress() on the frames. The
 * driver has therefore rejected each copy that xg_readdress() addressed since the last flush and that the driver did
 * not send. A veth device, for example, rejects copies if its peer does not receive frames.
 */
static __always_inline int xg_watch_flush(struct bpf_raw_tracepoint_args *ctx)
{
	struct xg_scratch *scratch = xg_scratch();
	__u32 addressed, sent, dropped;

	if (!scratch || !scratch->flushing)
		return 0;
	addressed = scratch->flushing;
	sent = ctx->args[2];
	dropped = ctx->args[3];
	scratch->flushing = 0;
	/*
	 * The kernel signals the driver to send only with the last batch of a flush. After a batch of XG_FLUSH frames,
	 * another batch of the same flush may follow.
	 */
	if (sent + dropped != XG_FLUSH)
		scratch->waiting = 0;
	else if (sent)
		scratch->waiting = 1;
	/*
	 * If ``addressed`` exceeds XG_FLUSH, the count includes copies from flushes before this program was attached.
	 */
	if (addressed <= XG_FLUSH && sent < addressed)
		xg_count_more(XG_COUNT_copy_lost, addressed - sent);
	return 0;
}

#endif
