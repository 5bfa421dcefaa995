/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Who gets a copy of a rumor, and where its frame goes. */
#ifndef XG_RELAY_H
#define XG_RELAY_H

#define XG_HOP_LIMIT 64
#define XG_AF_INET 2
#define XG_AF_INET6 10

static __always_inline __u32 xg_copies_of(const struct xg_config *local, __u8 type)
{
	__u32 copies = type == XG_METADATA || type == XG_LEAVE ? local->wide : local->amount;

	return copies < XG_COPIES ? copies : XG_COPIES;
}

/* How many targets there are. */
static __always_inline __u32 xg_ring_size(const struct xg_config *local)
{
	return local->ring_size < XG_RING ? local->ring_size : XG_RING;
}

/*
 * The next target of the ring. The cursor starts again at the ring's end without a branch: the verifier would follow
 * each number it could be from there.
 */
static __always_inline const struct xg_target *xg_step(const struct xg_config *local, __u32 size, __u64 *cursor)
{
	__u64 at = *cursor & (__s64)(*cursor - size) >> 63;

	*cursor = at + 1;
	return xg_find_target((local->ring_half & 1) * XG_RING + at);
}

/* No copy goes to where the rumor came from, nor to its origin. */
static __always_inline bool xg_eligible(const struct xg_target *target, const struct xg_packet *packet,
					const void *source, __be16 source_port, bool mapped)
{
	if (xg_is_mapped(target->addr) != mapped)
		return false;
	if (target->port == packet->port && xg_equal(target->addr, packet->origin))
		return false;
	return target->port != source_port || !xg_equal(target->addr, source);
}

/*
 * The kernel's own routing: refused (5, BPF_FIB_LKUP_RET_FWD_DISABLED) where forwarding is off, as on every ordinary
 * server; there the stack's output teaches the next hops (xg_learn).
 */
static __always_inline bool xg_ask_fib(void *ctx, const struct xg_config *local, const struct xg_target *target,
				       bool mapped, __u32 ifindex, struct xg_nexthop *hop)
{
	struct bpf_fib_lookup fib = {};

	fib.ifindex = ifindex;
	fib.l4_protocol = IPPROTO_UDP;
	if (mapped) {
		fib.family = XG_AF_INET;
		fib.ipv4_src = xg_mapped(local->addr);
		fib.ipv4_dst = xg_mapped(target->addr);
	} else {
		fib.family = XG_AF_INET6;
		xg_copy_address(fib.ipv6_src, local->addr);
		xg_copy_address(fib.ipv6_dst, target->addr);
	}
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), BPF_FIB_LOOKUP_OUTPUT) != BPF_FIB_LKUP_RET_SUCCESS)
		return false;
	xg_copy_mac(hop->dst, fib.dmac);
	xg_copy_mac(hop->src, fib.smac);
	hop->ifindex = fib.ifindex;
	return true;
}

/* Fills ``hop``; false: nobody here knows, the stack has to find out. */
static __always_inline bool xg_next_hop(void *ctx, const struct xg_config *local, const struct xg_target *target,
					bool mapped, __u32 ifindex, struct xg_nexthop *hop)
{
	const struct xg_nexthop *known = xg_find_hop(target->addr);
	__u64 now = bpf_ktime_get_coarse_ns();

	/* Signed: what another CPU learnt after this one read its clock is no older than 0. */
	if (known && (__s64)(now - known->learnt) < (__s64)XG_NEXTHOP_NS) {
		*hop = *known;
		return true;
	}
	if (!xg_ask_fib(ctx, local, target, mapped, ifindex, hop))
		return false;
	hop->learnt = now;
	xg_keep_hop(target->addr, hop);
	xg_count(XG_COUNT_hop_fib);
	return true;
}

#endif
