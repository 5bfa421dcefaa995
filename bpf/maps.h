/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the kernel and the agent share. dataplane/layout.py states the same structures for Python; a test holds the
 * two equal. A change of any of them needs a new XG_LAYOUT: it is part of the path the maps are pinned under.
 */
#ifndef XG_MAPS_H
#define XG_MAPS_H

#include "counters.h"
#include "wire.h"

#define XG_LAYOUT 4

/* Room for targets in each half of the ring; a power of two, as an index is masked with it. */
#define XG_RING 256
/* Most copies of one rumor. */
#define XG_COPIES 64
#define XG_NEXTHOPS 4096
#define XG_EVENT_BYTES (256 * 1024)
/* Networks that may speak to this node. */
#define XG_ALLOWED 257 /* one says that IPv4 does not lie within a network of IPv6 */
/* Sources of refused packets that are remembered, the least recently seen forgotten first. */
#define XG_REFUSALS 1024
/* A next hop learnt from the stack's own output holds for so long. */
#define XG_NEXTHOP_NS 60000000000ULL
/*
 * What one sender can cost. Times are in slots of 2^27 ns (134 ms), so that a shift tells them apart.
 */
#define XG_SLOT_BITS 27
/* Packets per slot and CPU that may ask the agent for a decision, and as many odd ones that are passed on. */
#define XG_ASK_LIMIT 100
/* Direct packets of one node that are passed on in a slot, and rumors of one origin that are taken and relayed. */
#define XG_DIRECT_LIMIT 250
#define XG_RUMOR_LIMIT 250
/* Nodes whose direct packets are remembered, the least recently heard forgotten first. */
#define XG_DIRECTS 4096
/* Words of their window: one less, times 64, is how late a direct packet may come. A power of two. */
#define XG_DIRECT_WORDS 32

/* xg_config.flags */
#define XG_RUNNING 0x01
#define XG_GENERIC 0x02 /* the XDP program sits behind the driver: frames may hold half a checksum, and leave with it */
#define XG_ALLOW 0x04	/* only sources that are in the map allow may speak */

/* Written by the agent, once per cycle and at every change. Times are CLOCK_MONOTONIC in nanoseconds. */
struct xg_config {
	__u8 addr[16]; /* of the local node, IPv6 or IPv4-mapped */
	__be16 port;
	__u16 amount; /* copies of a heartbeat or a node record */
	__u16 wide;   /* copies of a metadata rumor or a leave */
	__u16 flags;
	__be32 cluster;
	__u32 incarnation;
	__u64 state_digest; /* of the documents that the local node holds */
	__u64 lease;	    /* until when the data plane works without hearing from the agent */
	__s64 clock;	    /* the cluster's wall time minus CLOCK_MONOTONIC */
	__u64 timeout;
	__u64 max_clock_drift;
	__u32 ring_half; /* which half of the ring holds the targets: 0 or 1 */
	__u32 ring_size; /* how many */
};

/* A slot of the keyring. */
struct xg_key {
	__u32 present;
	__u32 zero;
	__u8 mac[16]; /* SipHash's key, aligned to its words */
};

struct xg_node_key {
	__u8 addr[16];
	__be16 port;
	__u16 zero;
};

/* xg_node.standing: what the agent holds of the node. */
#define XG_PRESENT 0
#define XG_SUSPECT 1
#define XG_GONE 2

/* One origin; a cache line. Integers in host order. */
struct xg_node {
	struct bpf_spin_lock lock;
	__u32 incarnation;
	__u64 highest;	    /* newest rumor sequence */
	__u64 window;	    /* bit i: highest - i was seen (RFC 6479) */
	__u64 last_seen;    /* last sign of life, CLOCK_MONOTONIC ns; 0: none */
	__s64 clock;	    /* its wall time minus CLOCK_MONOTONIC here, at its newest packet */
	__u64 state_digest; /* as its newest packet says */
	__u64 record_digest;
	__u8 standing;
	__u8 flags;   /* of its newest packet */
	__u16 rumors; /* taken in this slot */
	__u32 slot;
};

/*
 * The direct packets of one node. Without a lock: two CPUs that race let a copy pass, which the agent's own window
 * stops.
 */
struct xg_direct {
	__u32 incarnation;
	__u32 slot;
	__u64 passed; /* in this slot */
	__u64 highest;
	__u64 window[XG_DIRECT_WORDS]; /* bit s % 64 of word s / 64 % XG_DIRECT_WORDS: s was seen (RFC 6479) */
};

/* A member that rumors are relayed to. The agent shuffles them each cycle into the half that is not in use. */
struct xg_target {
	__u8 addr[16];
	__be16 port;
	__u8 zero[6];
};

/* How frames for an address leave this interface. */
struct xg_nexthop {
	__u8 dst[6];
	__u8 src[6];
	__u32 ifindex;
	__u64 learnt; /* CLOCK_MONOTONIC ns */
};

/* A network that may speak to this node, or not, as the entry says (struct bpf_lpm_trie_key). */
struct xg_allow_key {
	__u32 prefix;  /* bits, of 128 */
	__u8 addr[16]; /* IPv6 or IPv4-mapped */
};

/*
 * Who sent what was dropped, by source address and verdict. Sampled: at most one packet per CPU and tick, so that a
 * flood costs nothing more. The source address of a forged packet may be forged too.
 */
struct xg_refusal_key {
	__u8 addr[16];
	__u32 verdict; /* index of the counter */
	__u32 zero;
};

struct xg_refusal {
	__u64 samples;
	__u64 last; /* CLOCK_MONOTONIC ns */
};

/* xg_event.kind */
#define XG_EVENT_NEWS 1	      /* accepted, recorded and relayed here: take note */
#define XG_EVENT_ASK 2	      /* authentic, nothing else done: decide, and relay it if need be */
#define XG_EVENT_UNRESOLVED 3 /* no next hop known: send the packet to addr and port through the stack */

/* What goes through the ring buffer: this, then the packet. */
struct xg_event {
	__u64 time;    /* CLOCK_MONOTONIC ns */
	__u8 addr[16]; /* where the packet came from, or is to go to */
	__be16 port;
	__u16 length; /* bytes of the packet */
	__u8 kind;
	__u8 zero[3];
};

#endif
