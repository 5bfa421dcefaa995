/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The kernel data plane. BCC compiles only this file. This file defines the entry points of the programs. This file
 * also defines the tables, because BCC translates the methods of a table (such as lookup) only in the file that BCC
 * compiles. The headers contain the code of the programs. A packet passes through the headers in the order of this
 * list:
 *
 *   `wire.h`, `maps.h` and `counters.h` declare formats and counters that the programs share with the agent.
 *   `tables.h` declares the functions through which the other headers access the tables.
 *   `parse.h` finds the packet in a frame.
 *   `siphash.h` and `receive.h` check the MAC, and decide whether to accept the packet.
 *   `events.h` passes packets to the agent.
 *   `relay.h` and `checksum.h` choose the targets of a rumor, and compute the checksums of its copies.
 *   `answer.h` makes the answers to edge probes.
 *   `selftest.h` recognizes the frames of the loader's self-test.
 *   `xdp.h` and `tc.h` contain the programs for XDP and for TC, which use all headers above.
 *
 * The loader creates the tables, so it sets the number of entries of the table of nodes. The loader also sets the
 * constants XG_AMOUNT and XG_WIDE when it loads a program. Benchmarks define all three for the compiler.
 */
#include <uapi/linux/bpf.h>

#include "counters.h"
#include "maps.h"
#include "tables.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "SipHash reads its words straight from the packet: that takes a little-endian machine"
#endif

/* Maximum number of origins in the table of nodes. The loader creates the table with a number of its own. */
#ifndef XG_NODES
#define XG_NODES 1
#endif

BPF_TABLE("array", __u32, struct xg_config, config, 1);
BPF_TABLE("array", __u32, struct xg_key, keys, 256);
BPF_TABLE("hash", struct xg_node_key, struct xg_node, nodes, XG_NODES);
BPF_TABLE("array", __u32, struct xg_target, targets, 2 * XG_RING);
BPF_TABLE("lru_hash", struct xg_address, struct xg_nexthop, nexthops, XG_NEXTHOPS);
BPF_TABLE("lru_hash", struct xg_node_key, struct xg_direct, directs, XG_DIRECTS);
BPF_TABLE("lru_hash", struct xg_node_key, struct xg_asker, askers, XG_ASKERS);
BPF_TABLE("lru_hash", struct xg_node_key, struct xg_ack, acks, XG_ACKS);
BPF_TABLE("percpu_array", __u32, __u64, counters, XG_COUNTERS);
BPF_TABLE("lru_hash", struct xg_refusal_key, struct xg_refusal, refusals, XG_REFUSALS);

BPF_F_TABLE("lpm_trie", struct xg_allow_key, __u8, allow, XG_ALLOWED, BPF_F_NO_PREALLOC);

/*
 * This structure declares the same table as BPF_RINGBUF_OUTPUT. The macro BPF_RINGBUF_OUTPUT takes a number of pages,
 * whose size depends on the machine.
 */
struct events_table_t {
	int key;
	__u32 leaf;
	int (*ringbuf_output)(void *, __u64, __u64);
	__u32 max_entries;
};
__attribute__((section("maps/ringbuf"))) struct events_table_t events = {
	.max_entries = XG_EVENT_BYTES,
};

/*
 * The loader fills both device maps. Every entry of these maps contains the index of the agent's interface and the
 * program xg_xdp_egress.
 */
BPF_XDP_REDIRECT_MAP("devmap", struct bpf_devmap_val, relay, XG_COPIES);
BPF_XDP_REDIRECT_MAP("devmap", struct bpf_devmap_val, relay_wide, XG_COPIES);

BPF_TABLE("percpu_array", __u32, struct xg_scratch, scratch, 1);

static __always_inline void xg_count_more(__u32 counter, __u64 more)
{
	__u64 *count = counters.lookup(&counter);

	if (count)
		*count += more;
}

static __always_inline void xg_count(__u32 counter)
{
	xg_count_more(counter, 1);
}

static __always_inline const struct xg_config *xg_local(void)
{
	__u32 first = 0;

	return config.lookup(&first);
}

static __always_inline struct xg_scratch *xg_scratch(void)
{
	__u32 first = 0;

	return scratch.lookup(&first);
}

/*
 * Returns CLOCK_MONOTONIC in nanoseconds. The returned time may be up to two ticks old. The kernel's coarse clock
 * changes only at a tick, so this function reads the clock once per tick. The programs need the time for every packet,
 * and a call of the BPF helper that reads the clock costs as much as the lookup of the packet's origin.
 */
static __always_inline __u64 xg_coarse_ns(void)
{
	struct xg_scratch *scratch = xg_scratch();
	__u64 tick = bpf_jiffies64();

	if (!scratch)
		return bpf_ktime_get_coarse_ns();
	if (scratch->tick != tick) {
		scratch->tick = tick;
		scratch->now = bpf_ktime_get_coarse_ns();
	}
	return scratch->now;
}

static __always_inline const struct xg_key *xg_find_key(__u8 key_id)
{
	__u32 index = key_id;

	return keys.lookup(&index);
}

static __always_inline struct xg_node *xg_find_node(struct xg_node_key *key)
{
	return nodes.lookup(key);
}

/* Creates the entry of a node. Returns -XG_EEXIST if the node already has an entry. */
static __always_inline long xg_insert_node(struct xg_node_key *key, struct xg_node *node)
{
	return nodes.insert(key, node);
}

/*
 * Returns the entry for a node's direct packets, and creates the entry if it is missing. Returns null if the table has
 * no room for the entry.
 */
static __always_inline struct xg_direct *xg_find_direct(struct xg_node_key *key)
{
	struct xg_direct *known = directs.lookup(key);
	struct xg_scratch *scratch = xg_scratch();

	if (known || !scratch)
		return known;
	directs.update(key, &scratch->blank);
	return directs.lookup(key);
}

/*
 * Returns the entry for a node's edge probes, and creates the entry if it is missing. Returns null if the table has no
 * room for the entry.
 */
static __always_inline struct xg_asker *xg_find_asker(struct xg_node_key *key)
{
	struct xg_asker *known = askers.lookup(key), fresh = {};

	if (known)
		return known;
	askers.update(key, &fresh);
	return askers.lookup(key);
}

static __always_inline struct xg_ack *xg_find_ack(struct xg_node_key *key)
{
	return acks.lookup(key);
}

static __always_inline long xg_keep_ack(struct xg_node_key *key, struct xg_ack *ack)
{
	return acks.update(key, ack);
}

static __always_inline const __u8 *xg_find_allowed(struct xg_allow_key *key)
{
	return allow.lookup(key);
}

static __always_inline const struct xg_target *xg_find_target(__u32 index)
{
	return targets.lookup(&index);
}

static __always_inline struct xg_nexthop *xg_find_hop(const void *addr)
{
	return nexthops.lookup((struct xg_address *)addr);
}

static __always_inline long xg_keep_hop(const void *addr, struct xg_nexthop *hop)
{
	return nexthops.update((struct xg_address *)addr, hop);
}

/* Returns whether to record the source of a refused packet. The result is true at most once per tick and CPU. */
static __always_inline bool xg_refusal_due(void)
{
	struct xg_scratch *scratch = xg_scratch();

	/* xg_lease_over() has read the clock for this packet, so scratch->tick is the current tick. */
	if (!scratch || scratch->refused == scratch->tick)
		return false;
	scratch->refused = scratch->tick;
	return true;
}

/* Records that a packet from ``key->addr`` was refused. */
static __always_inline void xg_note_refusal(struct xg_refusal_key *key)
{
	struct xg_refusal fresh = {.samples = 1}, *known;
	struct xg_scratch *scratch = xg_scratch();

	if (!scratch)
		return;
	fresh.last = scratch->now;
	known = refusals.lookup(key);
	if (known) {
		/* If another CPU changes the entry at the same time, the count may lose a sample, which is acceptable. */
		known->samples++;
		known->last = fresh.last;
	} else {
		refusals.update(key, &fresh);
	}
}

static __always_inline long xg_output(void *event, __u64 size)
{
	return events.ringbuf_output(event, size, 0);
}

static __always_inline int xg_broadcast(bool wide)
{
	return wide ? relay_wide.redirect_map(0, BPF_F_BROADCAST) : relay.redirect_map(0, BPF_F_BROADCAST);
}

/* Redirects the frame out of the agent's interface. Returns XDP_DROP if the loader has not filled the device map. */
static __always_inline int xg_send_back(void)
{
	return relay.redirect_map(0, XDP_DROP);
}

#include "tc.h"
#include "xdp.h"

int xg_xdp_ingress(struct xdp_md *ctx)
{
	return xg_ingress(ctx);
}

/* The loader loads this program with the expected attach type BPF_XDP_DEVMAP. */
int xg_xdp_egress(struct xdp_md *ctx)
{
	return xg_readdress(ctx, ctx->egress_ifindex);
}

/* The loader attaches this program to the raw tracepoint xdp_devmap_xmit, in native mode only. */
int xg_watch(struct bpf_raw_tracepoint_args *ctx)
{
	return xg_watch_flush(ctx);
}

int xg_tc_ingress(struct __sk_buff *skb)
{
	return xg_tc_in(skb);
}

int xg_tc_egress(struct __sk_buff *skb)
{
	return xg_tc_out(skb);
}
