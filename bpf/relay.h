/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Chooses the targets of a rumor, and finds the next hop of each target. */
#ifndef XG_RELAY_H
#define XG_RELAY_H

#include "counters.h"
#include "parse.h"
#include "tables.h"
#include "wire.h"

#define XG_HOP_LIMIT 64
#define XG_AF_INET 2
#define XG_AF_INET6 10

/* Returns the relay area of the packet as one word: ttl, hops, fanout and a zero byte, in memory order. */
static __always_inline __u32 xg_relay_area(const struct xg_packet *packet)
{
	return *(const xg_u32 *)&packet->ttl;
}

/*
 * Returns whether members send a rumor of this type to three times as many members as a heartbeat. Documents, leaves
 * and alerts must reach all members at the first attempt. A lost heartbeat does less harm, because the origin sends the next
 * heartbeat one cycle later.
 */
static __always_inline bool xg_is_wide(__u8 type)
{
	return type == XG_METADATA || type == XG_LEAVE || type == XG_ALERT;
}

static __always_inline __u32 xg_copies_of(const struct xg_config *local, __u8 type)
{
	__u32 copies = xg_is_wide(type) ? local->wide : local->amount;

	return copies < XG_COPIES ? copies : XG_COPIES;
}

/*
 * Returns the index of the next target in the ring, and advances the cursor. The function resets the cursor at the
 * end of the ring without a branch, because after a branch the verifier would follow each value of the cursor
 * separately.
 */
static __always_inline __u32 xg_step(const struct xg_config *local, __u64 *cursor)
{
	__u64 at = *cursor & (__s64)(*cursor - local->ring_size) >> 63;

	*cursor = at + 1;
	return (local->ring_half & 1) * XG_RING + at;
}

/*
 * The origin of a rumor, and the member that sent the rumor to this host. The programs send no copy to the origin or to
 * the sending member.
 */
struct xg_way {
	struct xg_node_key origin __attribute__((aligned(8)));
	struct xg_node_key source __attribute__((aligned(8)));
	bool v6;
};

/*
 * Compares a target with a node in one expression, because every branch in a loop adds states for the verifier to
 * follow.
 */
static __always_inline bool xg_is(const struct xg_target *target, const struct xg_node_key *node)
{
	const xg_u64 *a = (const xg_u64 *)target->addr, *b = (const xg_u64 *)node->addr;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (target->port ^ node->port));
}

static __always_inline bool xg_eligible(const struct xg_target *target, const struct xg_way *way)
{
	return xg_is_mapped(target->addr) != way->v6 && !xg_is(target, &way->origin) && !xg_is(target, &way->source);
}

/*
 * Finds the next hop in the kernel's routing table (FIB). The lookup fails with BPF_FIB_LKUP_RET_FWD_DISABLED (5) if
 * IP forwarding is off, which is normal for a server. If IP forwarding is off, the programs learn next hops from the
 * frames that the stack sends (xg_learn).
 */
static __always_inline bool xg_ask_fib(void *ctx, const struct xg_config *local, const struct xg_target *target,
				       bool v6, __u32 ifindex, struct xg_nexthop *hop)
{
	struct bpf_fib_lookup fib = {};

	fib.ifindex = ifindex;
	fib.l4_protocol = IPPROTO_UDP;
	if (v6) {
		fib.family = XG_AF_INET6;
		xg_copy_address(fib.ipv6_src, local->addr);
		xg_copy_address(fib.ipv6_dst, target->addr);
	} else {
		fib.family = XG_AF_INET;
		fib.ipv4_src = xg_mapped(local->addr);
		fib.ipv4_dst = xg_mapped(target->addr);
	}
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), BPF_FIB_LOOKUP_OUTPUT) != BPF_FIB_LKUP_RET_SUCCESS)
		return false;
	xg_copy_mac(hop->dst, fib.dmac);
	xg_copy_mac(hop->src, fib.smac);
	hop->ifindex = fib.ifindex;
	return true;
}

/*
 * Sets ``hop`` to the next hop through which this interface reaches a target. Returns false if neither the map nor
 * the FIB contains a next hop through this interface. If this function returns false, the stack has to find the next
 * hop.
 */
static __always_inline bool xg_next_hop(void *ctx, const struct xg_config *local, const struct xg_target *target,
					bool v6, __u32 ifindex, struct xg_nexthop *hop)
{
	const struct xg_nexthop *known = xg_find_hop(target->addr);
	__u64 now = xg_coarse_ns();

	/* The difference is signed, because another CPU may have stored the next hop after this CPU read its clock. */
	if (known && (__s64)(now - known->learnt) < (__s64)XG_NEXTHOP_NS) {
		*hop = *known;
		return hop->ifindex == ifindex;
	}
	if (!xg_ask_fib(ctx, local, target, v6, ifindex, hop))
		return false;
	hop->learnt = now;
	xg_keep_hop(target->addr, hop);
	xg_count(XG_COUNT_hop_fib);
	return hop->ifindex == ifindex;
}

static __always_inline bool xg_same_hop(const struct xg_nexthop *one, const struct xg_nexthop *other)
{
	const xg_u64 *a = (const xg_u64 *)one, *b = (const xg_u64 *)other;

	/* The members dst, src and ifindex fill the first 16 bytes. */
	return a[0] == b[0] && a[1] == b[1];
}

/*
 * Stores the next hop of a frame that the stack sends. The stack has already found the route and the neighbour for this
 * frame.
 */
static __always_inline void xg_learn(const struct xg_frame *frame, __u32 ifindex)
{
	struct xg_nexthop *known, hop = {};
	__u64 addr[2];

	if (frame->eth->h_dest[0] & 1)
		return; /* multicast */
	if (frame->v6)
		xg_copy_address(addr, &frame->ip6->daddr);
	else
		xg_map_address(addr, frame->ip->daddr);
	xg_copy_mac(hop.dst, frame->eth->h_dest);
	xg_copy_mac(hop.src, frame->eth->h_source);
	hop.ifindex = ifindex;
	hop.learnt = xg_coarse_ns();
	known = xg_find_hop(addr);
	if (known && xg_same_hop(known, &hop)) {
		known->learnt = hop.learnt;
		return;
	}
	if (!xg_keep_hop(addr, &hop))
		xg_count(XG_COUNT_hop_learnt);
}

#endif
