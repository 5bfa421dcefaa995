/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The data plane in TC. On hosts that cannot use XDP, the TC program at ingress does the work of the programs in
 * xdp.h. At egress, in every mode, the TC program copies the agent's own rumors to their targets, and learns next
 * hops from the frames that the agent sends. The ingress program and the egress program both make the copies of a rumor
 * in a loop. Every copy is a clone of the frame, and passes the egress program again. The egress program recognizes a
 * clone by its mark, and removes the mark. For frames that the data plane does not handle, the programs return TCX_NEXT
 * (TC_ACT_UNSPEC in clsact), so that programs of other owners see these frames.
 */
#ifndef XG_TC_H
#define XG_TC_H

#include <linux/pkt_cls.h>

#include "answer.h"
#include "checksum.h"
#include "counters.h"
#include "events.h"
#include "parse.h"
#include "receive.h"
#include "relay.h"
#include "selftest.h"
#include "tables.h"

#define XG_NEXT -1
/*
 * The mark of a clone, which consists of the letters "XG" and the number 1. A policy of the host is unlikely to use
 * this mark by chance, and the egress program removes the mark before the frame leaves the interface.
 */
#define XG_MARK 0x58470001U

#define XG_IP_HEADERS (sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr))
#define XG_IP6_HEADERS (sizeof(struct ethhdr) + sizeof(struct ipv6hdr) + sizeof(struct udphdr))

/*
 * The counters for the outcomes of copies. There are two sets of counters: one set for relayed rumors, and one set
 * for the agent's own rumors.
 */
struct xg_outcomes {
	__u32 sent;
	__u32 surplus;
	__u32 unresolved;
	__u32 failed;
};

static __always_inline __u32 xg_headers(bool v6)
{
	return v6 ? XG_IP6_HEADERS : XG_IP_HEADERS;
}

static __always_inline __u32 xg_checksum_at(bool v6)
{
	return xg_headers(v6) - sizeof(struct udphdr) + __builtin_offsetof(struct udphdr, check);
}

/*
 * Moves the first ``bytes`` bytes of the frame into the linear part of the skb, unless the linear part already
 * contains these bytes. Afterwards the caller must read all pointers into the frame again.
 */
static __always_inline bool xg_pull(struct __sk_buff *skb, __u32 bytes)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	return end - data >= bytes || (skb->len >= bytes && !bpf_skb_pull_data(skb, bytes));
}

static __always_inline void xg_tc_tell(struct __sk_buff *skb, bool v6, __u8 kind, const void *addr, __be16 port,
				       __u64 length)
{
	struct xg_scratch *scratch = xg_scratch();
	__u64 body;

	if (!scratch) {
		xg_count(XG_COUNT_news_lost);
		return;
	}
	xg_describe(scratch, kind, addr, port, length);
	/*
	 * The verifier must see that the length is neither 0 nor too long. One comparison of the length that the program
	 * passes to the helper checks both bounds. The comparison stands right before the call, because before Linux 6.3 the
	 * verifier loses the bounds of a register when the compiler stores the register's value on the stack.
	 */
	body = length - XG_HEADER_BYTES;
	XG_KEEP(body);
	if (body > XG_DATAGRAM_BYTES - XG_HEADER_BYTES) {
		xg_count(XG_COUNT_news_lost);
		return;
	}
	xg_hand_over(scratch, !bpf_skb_load_bytes(skb, xg_headers(v6), scratch->packet, body + XG_HEADER_BYTES));
}

/*
 * Updates the relay area (ttl, hops, fanout) and the UDP checksum. ``hop``: whether to decrement ttl and increment
 * hops.
 */
static __always_inline bool xg_change_relay_area(struct __sk_buff *skb, bool v6, bool hop)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct xg_packet *packet;
	struct xg_frame frame;
	__u32 before, after;

	packet = xg_locate(&frame, data, end, v6);
	if (!packet)
		return false;
	before = xg_relay_area(packet);
	if (hop) {
		packet->ttl--;
		if (packet->hops != 255)
			packet->hops++;
	}
	packet->fanout = 0;
	after = xg_relay_area(packet);
	return !bpf_l4_csum_replace(skb, xg_checksum_at(v6), 0, xg_fold32(xg_sum_change(before, after)),
				    BPF_F_MARK_MANGLED_0);
}

/*
 * Changes the addresses of the frame so that the frame goes to one target. The function updates the checksum by the
 * difference of the changed fields, because a half-done checksum cannot be computed again.
 */
static __always_inline bool xg_tc_address(struct __sk_buff *skb, bool v6, const struct xg_config *local,
					  const struct xg_target *target, const struct xg_nexthop *hop)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 check = xg_checksum_at(v6);
	struct xg_frame frame;
	__u64 addresses, ports;

	if (!xg_locate(&frame, data, end, v6))
		return false;
	xg_copy_mac(frame.eth->h_dest, hop->dst);
	xg_copy_mac(frame.eth->h_source, hop->src);
	if (v6) {
		addresses = xg_sum_words(local->addr, 4) + xg_sum_words(target->addr, 4);
		addresses += 8 * 0xffffffffULL - xg_sum_words(&frame.ip6->saddr, 8);
		frame.ip6->hop_limit = XG_HOP_LIMIT;
		xg_copy_address(&frame.ip6->saddr, local->addr);
		xg_copy_address(&frame.ip6->daddr, target->addr);
	} else {
		addresses = xg_sum_change(frame.ip->saddr, xg_mapped(local->addr)) +
			    xg_sum_change(frame.ip->daddr, xg_mapped(target->addr));
		frame.ip->ttl = XG_HOP_LIMIT;
		frame.ip->saddr = xg_mapped(local->addr);
		frame.ip->daddr = xg_mapped(target->addr);
		frame.ip->check = 0;
		frame.ip->check = xg_ip_checksum(frame.ip);
	}
	ports = xg_sum_change(frame.udp->source, local->port) + xg_sum_change(frame.udp->dest, target->port);
	frame.udp->source = local->port;
	frame.udp->dest = target->port;
	return !bpf_l4_csum_replace(skb, check, 0, xg_fold32(addresses), BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) &&
	       !bpf_l4_csum_replace(skb, check, 0, xg_fold32(ports), BPF_F_MARK_MANGLED_0);
}

/*
 * Chooses up to scratch->wanted targets in one pass over the ring, and sets scratch->chosen to the number of chosen
 * targets. The counts scratch->wanted and scratch->chosen are in the scratch entry, because the verifier would follow
 * each value of a variable separately at each step.
 */
static __always_inline void xg_choose(struct xg_scratch *scratch, const struct xg_config *local,
				      const struct xg_way *way)
{
	__u64 cursor = scratch->cursor;
	const struct xg_target *target;
	__u32 at, chosen;

	scratch->chosen = 0;
	for (__u32 i = 0; i < XG_RING; i++) {
		chosen = scratch->chosen;
		if (i >= local->ring_size || chosen >= scratch->wanted)
			break;
		at = xg_step(local, &cursor);
		target = xg_find_target(at);
		if (!target || !xg_eligible(target, way))
			continue;
		/*
		 * The index is below XG_COPIES even without the mask. The mask only proves to the verifier that the
		 * index is below XG_COPIES.
		 */
		scratch->choice[chosen & (XG_COPIES - 1)] = at;
		scratch->chosen = chosen + 1;
	}
	scratch->cursor = cursor;
}

/* Sends one copy of a rumor, and returns the index of the counter for the outcome. */
static __always_inline __u32 xg_send_copy(struct __sk_buff *skb, const struct xg_config *local,
					  const struct xg_way *way, __u32 index, __u32 length,
					  const struct xg_outcomes *outcomes)
{
	const struct xg_target *target = xg_find_target(index);
	struct xg_nexthop hop;

	if (!target)
		return outcomes->failed;
	if (!xg_next_hop(skb, local, target, way->v6, skb->ifindex, &hop)) {
		xg_tc_tell(skb, way->v6, XG_EVENT_UNRESOLVED, target->addr, target->port, length);
		return outcomes->unresolved;
	}
	if (!xg_tc_address(skb, way->v6, local, target, &hop) || bpf_clone_redirect(skb, skb->ifindex, 0))
		return outcomes->failed;
	return outcomes->sent;
}

/* Sends up to ``wanted`` copies of a rumor, one for each eligible target. */
static __always_inline void xg_send_copies(struct __sk_buff *skb, const struct xg_config *local,
					   const struct xg_way *way, __u32 wanted, __u32 length,
					   const struct xg_outcomes outcomes)
{
	struct xg_scratch *scratch = xg_scratch();

	if (!scratch)
		return;
	/*
	 * The number of copies and the length are in the scratch entry for the same reason as in xg_choose(): the
	 * verifier would follow each range of the length separately.
	 */
	scratch->wanted = wanted;
	scratch->length = length;
	xg_choose(scratch, local, way);
	if (scratch->chosen < scratch->wanted)
		xg_count_more(outcomes.surplus, scratch->wanted - scratch->chosen);
	skb->mark = XG_MARK;
	for (__u32 i = 0; i < XG_COPIES; i++) {
		if (i >= scratch->chosen)
			break;
		xg_count(xg_send_copy(skb, local, way, scratch->choice[i], scratch->length, &outcomes));
	}
}

static __always_inline void xg_tc_relay(struct __sk_buff *skb, const struct xg_config *local, struct xg_way *way,
					__u32 length)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct xg_packet *packet;
	struct xg_frame frame;
	__u32 wanted;

	packet = xg_locate(&frame, data, end, way->v6);
	if (!packet)
		return;
	if (!packet->ttl) {
		xg_count(XG_COUNT_relay_ttl);
		return;
	}
	if (!local->ring_size) {
		xg_count(XG_COUNT_relay_alone);
		return;
	}
	wanted = xg_copies_of(local, packet->type);
	xg_count_more(XG_COUNT_copy_due, wanted);
	if (!xg_change_relay_area(skb, way->v6, true)) {
		xg_count_more(XG_COUNT_relay_failed, wanted);
		return;
	}
	xg_count(XG_COUNT_relay);
	xg_send_copies(skb, local, way, wanted, length,
		       (struct xg_outcomes){XG_COUNT_copy, XG_COUNT_copy_surplus, XG_COUNT_copy_unresolved,
					    XG_COUNT_relay_failed});
}

/*
 * Turns the frame of an edge probe into the frame of its answer, and sends it out of the interface on which it arrived.
 * The function changes the UDP checksum by the difference of the packets, because a half-done checksum cannot be
 * computed again.
 */
static __always_inline int xg_tc_answer(struct __sk_buff *skb, const struct xg_config *local, bool v6)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct xg_packet *packet;
	struct xg_frame frame;
	__u64 change;

	packet = xg_locate(&frame, data, end, v6);
	if (!packet)
		goto failed;
	change = XG_HEADER_WORDS * 0xffffffffULL - xg_sum_words(packet, XG_HEADER_WORDS);
	if (!xg_acknowledge(packet, local))
		goto failed;
	xg_turn_round(&frame);
	change += xg_sum_words(packet, XG_HEADER_WORDS);
	if (bpf_l4_csum_replace(skb, xg_checksum_at(v6), 0, xg_fold32(change), BPF_F_MARK_MANGLED_0))
		goto failed;
	/* The egress program has nothing to do for the answer. */
	skb->mark = XG_MARK;
	return bpf_redirect(skb->ifindex, 0);

failed:
	xg_count(XG_COUNT_answer_failed);
	return TC_ACT_SHOT;
}

/* The program at TC ingress. */
static __always_inline int xg_tc_in(struct __sk_buff *skb)
{
	const struct xg_config *local = xg_local();
	struct xg_scratch *scratch = xg_scratch();
	const struct xg_outcome *outcome;
	const struct xg_packet *packet;
	struct xg_rumor rumor = {};
	struct xg_frame frame;
	enum xg_whose whose;
	struct xg_way way;
	void *data, *end;
	__u32 verdict;

	/*
	 * Pulls the bytes of the headers of Ethernet, IPv6 and UDP. If the frame is too short for these headers, pulls
	 * the bytes of the headers of Ethernet, IPv4 and UDP.
	 */
	if (!local || !scratch || skb->vlan_present || !xg_pull(skb, XG_IP_HEADERS))
		return XG_NEXT;
	if (skb->len >= XG_IP6_HEADERS && !xg_pull(skb, XG_IP6_HEADERS))
		return XG_NEXT;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	whose = xg_parse(&frame, data, end, skb->len, local, scratch->source.addr);
	if (whose == XG_OTHERS) {
		if (!xg_is_selftest(data, end))
			return XG_NEXT;
		xg_count(XG_COUNT_selftest_ingress);
		return TC_ACT_SHOT;
	}
	rumor.local = local;
	rumor.frame = &frame;
	rumor.length = frame.length;
	way.v6 = frame.v6;
	/*
	 * The program pulls the bytes of the packet only if xg_screen() accepts the packet, so the program checks later
	 * whether the frame contains the packet's header.
	 */
	verdict = xg_screen(scratch, local, whose == XG_ODD || skb->gso_size, frame.length, true);
	if (verdict == XG_GO_ON && !xg_pull(skb, xg_headers(way.v6) + frame.length))
		verdict = scratch->lease_over ? XG_COUNT_pass_no_agent : XG_COUNT_drop_truncated;
	if (verdict == XG_GO_ON) {
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		rumor.packet = xg_locate(&frame, data, end, way.v6);
		rumor.end = end;
		verdict = rumor.packet ? xg_receive(&rumor) : XG_COUNT_drop_truncated;
	}
	if (xg_judge(scratch, &rumor, &verdict))
		return XG_PASSES(verdict) ? XG_NEXT : TC_ACT_SHOT;
	outcome = &scratch->outcome;
	verdict = outcome->verdict;
	if (verdict == XG_COUNT_answer)
		return xg_tc_answer(skb, local, way.v6);
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	packet = xg_locate(&frame, data, end, way.v6);
	if (!packet)
		return TC_ACT_SHOT;
	xg_copy_address(way.origin.addr, packet->origin);
	way.origin.port = packet->port;
	way.origin.zero = 0;
	xg_source_of(&frame, way.source.addr);
	way.source.port = frame.udp->source;
	if (outcome->news || XG_ASKS(verdict))
		xg_tc_tell(skb, way.v6, outcome->news ? XG_EVENT_NEWS : XG_EVENT_ASK, way.source.addr, way.source.port,
			   frame.length);
	if (!XG_ASKS(verdict))
		xg_tc_relay(skb, local, &way, frame.length);
	return TC_ACT_SHOT;
}

/* Returns whether an outgoing frame is from the agent's address and port. */
static __always_inline bool xg_is_own(struct xg_frame *frame, void *data, void *end, const struct xg_config *local)
{
	struct ethhdr *eth = frame->eth = data;

	frame->ip = (void *)(eth + 1);
	if ((void *)(eth + 1) > end)
		return false;
	frame->v6 = eth->h_proto == bpf_htons(ETH_P_IPV6);
	if (frame->v6) {
		if ((void *)(frame->ip6 + 1) > end || frame->ip6->nexthdr != IPPROTO_UDP ||
		    !xg_equal(&frame->ip6->saddr, local->addr))
			return false;
		frame->udp = (void *)(frame->ip6 + 1);
	} else {
		if (eth->h_proto != bpf_htons(ETH_P_IP) || (void *)(frame->ip + 1) > end ||
		    frame->ip->protocol != IPPROTO_UDP || frame->ip->saddr != xg_mapped(local->addr) ||
		    !xg_is_mapped(local->addr) || frame->ip->ihl != 5 ||
		    frame->ip->frag_off & bpf_htons(XG_IP_FRAGMENT))
			return false;
		frame->udp = (void *)(frame->ip + 1);
	}
	return (void *)(frame->udp + 1) <= end && frame->udp->source == local->port;
}

/* Returns the number of members to which the agent addressed its own rumor, or 0 for any other packet. */
static __always_inline __u32 xg_fanout_of(const struct xg_packet *packet, __u32 length, const struct xg_config *local)
{
	if (length < XG_HEADER_BYTES || length > XG_DATAGRAM_BYTES)
		return 0;
	if (packet->magic != bpf_htons(XG_MAGIC) || packet->port != local->port ||
	    !xg_equal(packet->origin, local->addr))
		return 0;
	return packet->fanout < XG_COPIES ? packet->fanout : XG_COPIES;
}

/*
 * Frees a carrier (the frame that the agent sent for all targets), and reports to the stack that the frame was sent.
 * A redirect to interface 0, which does not exist, frees the frame and reports success (skb_do_redirect() of
 * net/core/filter.c). TC_ACT_SHOT would increment the host's error counters (UdpSndbufErrors, IpOutDiscards), and TCX
 * has no TC_ACT_STOLEN.
 */
static __always_inline int xg_consume(void)
{
	return bpf_redirect(0, 0);
}

static __always_inline int xg_fan_out(struct __sk_buff *skb, const struct xg_config *local, bool v6, __u32 wanted,
				      __u32 length)
{
	struct xg_way way = {};

	xg_copy_address(way.origin.addr, local->addr);
	way.origin.port = local->port;
	way.source = way.origin;
	way.v6 = v6;
	if (!xg_change_relay_area(skb, v6, false)) {
		xg_count_more(XG_COUNT_fanout_failed, wanted);
		return xg_consume();
	}
	xg_count(XG_COUNT_fanout);
	xg_send_copies(skb, local, &way, wanted, length,
		       (struct xg_outcomes){XG_COUNT_fanout_copy, XG_COUNT_fanout_surplus, XG_COUNT_fanout_unresolved,
					    XG_COUNT_fanout_failed});
	return xg_consume();
}

static __always_inline bool xg_is_genuine(struct __sk_buff *skb, bool v6, __u32 length)
{
	const struct xg_packet *packet;
	struct xg_frame frame;
	void *end;

	if (!xg_pull(skb, xg_headers(v6) + length))
		return false;
	end = (void *)(long)skb->data_end;
	packet = xg_locate(&frame, (void *)(long)skb->data, end, v6);
	return packet && xg_check_mac(packet, length, end) == XG_GO_ON;
}

/* The program at TC egress. */
static __always_inline int xg_tc_out(struct __sk_buff *skb)
{
	const struct xg_config *local = xg_local();
	const struct xg_packet *packet;
	struct xg_frame frame;
	void *data, *end;
	__u32 wanted = 0;

	if (skb->mark == XG_MARK) {
		skb->mark = 0;
		return XG_NEXT;
	}
	if (!local)
		return XG_NEXT;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (!xg_is_own(&frame, data, end, local)) {
		if (!xg_is_selftest(data, end))
			return XG_NEXT;
		xg_count(XG_COUNT_selftest_egress);
		return TC_ACT_SHOT;
	}
	if (xg_pull(skb, xg_headers(frame.v6) + XG_HEADER_BYTES)) {
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		packet = xg_locate(&frame, data, end, frame.v6);
		if (!packet)
			return XG_NEXT;
		wanted = xg_fanout_of(packet, frame.length, local);
		/*
		 * While no agent is bound to the agent's port, another process may bind to this port. The program must not
		 * copy a foreign process's packets to members.
		 */
		if (wanted && !xg_is_genuine(skb, frame.v6, frame.length)) {
			xg_count(XG_COUNT_fanout_forged);
			return TC_ACT_SHOT;
		}
		if (wanted)
			return xg_fan_out(skb, local, frame.v6, wanted, frame.length);
	}
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (xg_is_own(&frame, data, end, local))
		xg_learn(&frame, skb->ifindex);
	return XG_NEXT;
}

#endif
