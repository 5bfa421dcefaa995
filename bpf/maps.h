/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The maps that the kernel programs and the agent share. dataplane/layout.py declares the same structures for Python,
 * and a test compares the declarations of both files. A change of a structure needs a new value of XG_LAYOUT, because
 * the path of the pinned maps contains this value.
 */
#ifndef XG_MAPS_H
#define XG_MAPS_H

#include "counters.h"
#include "wire.h"

#define XG_LAYOUT 5

/*
 * Maximum number of targets in each half of the ring. XG_RING is a power of two, so that a program can bound an index
 * with a mask.
 */
#define XG_RING 256
/* Maximum number of copies of one rumor that one host sends. */
#define XG_COPIES 64
#define XG_NEXTHOPS 4096
#define XG_EVENT_BYTES (256 * 1024)
/* The constant number n that the loader sets when it loads a program is XG_PLACEHOLDER + n in the compiled program. */
#define XG_PLACEHOLDER 0x5847434f4e535400ULL
/*
 * Maximum number of entries in the map ``allow``, which contains the networks whose packets the programs accept: 256
 * networks, and one entry that excludes IPv4 from a network of IPv6.
 */
#define XG_ALLOWED 257
/* Maximum number of recorded sources of refused packets. A new source replaces the least recently seen source. */
#define XG_REFUSALS 1024
/* Nanoseconds for which a next hop is valid after the stack has sent a frame to that next hop. */
#define XG_NEXTHOP_NS 60000000000ULL
/*
 * Several limits bound the work that one sender can cause. Each limit applies to a slot of 2^27 ns (134 ms). The
 * time, shifted right by XG_SLOT_BITS, is the number of the slot.
 */
#define XG_SLOT_BITS 27
/*
 * Maximum number of packets that the programs pass to the agent for a decision, per slot and CPU. The same maximum
 * applies separately to the unusual packets (which only the stack can process) that the programs pass to the stack.
 */
#define XG_ASK_LIMIT 100
/*
 * The programs pass at most XG_DIRECT_LIMIT direct packets of one node to the stack in a slot. The programs accept
 * and relay at most XG_RUMOR_LIMIT rumors of one origin in a slot.
 */
#define XG_DIRECT_LIMIT 250
#define XG_RUMOR_LIMIT 250
/*
 * Maximum number of nodes with an entry for direct packets. A new node replaces the node that was silent for the
 * longest time.
 */
#define XG_DIRECTS 4096
/*
 * Maximum number of edge probes of one node that the programs answer in a slot. An observer asks once a second, or once
 * a cycle if the cycle is shorter.
 */
#define XG_PROBE_LIMIT 25
/* Maximum number of nodes whose edge probes the programs remember, the least recently heard node is replaced. */
#define XG_ASKERS 4096
/* Maximum number of nodes whose edge acknowledgements the programs remember. */
#define XG_ACKS 1024
/* An edge acknowledgement counts if its round is one of the last XG_ROUNDS rounds of the local agent. */
#define XG_ROUNDS 64
/*
 * Number of 64-bit words in a node's replay window for direct packets, a power of two. The program accepts a direct
 * packet if its sequence is at most (XG_DIRECT_WORDS - 1) * 64 behind the newest sequence.
 */
#define XG_DIRECT_WORDS 32

/* xg_config.flags */
#define XG_RUNNING 0x01
/* Set if the XDP program runs in generic mode, in which frames may have a half-done checksum (CHECKSUM_PARTIAL). */
#define XG_GENERIC 0x02
/* Set if the programs accept packets only from sources in the map ``allow``. */
#define XG_ALLOW 0x04

/*
 * The settings and the state that the agent gives to the programs. The agent writes this structure once per cycle and
 * at every change. Times are CLOCK_MONOTONIC in nanoseconds.
 */
struct xg_config {
	/* Address of the local node, IPv6 or IPv4-mapped. */
	__u8 addr[16];
	__be16 port;
	/* Number of copies of a heartbeat or a node record. */
	__u16 amount;
	/* Number of copies of a metadata rumor, a leave or an alert. */
	__u16 wide;
	__u16 flags;
	__be32 cluster;
	__u32 incarnation;
	/* Documents digest of the local node. */
	__u64 documents_digest;
	/* Time until which the data plane works without an update by the agent. */
	__u64 lease;
	/* The cluster's wall time minus CLOCK_MONOTONIC. */
	__s64 clock;
	__u64 timeout;
	__u64 max_clock_drift;
	/* Index (0 or 1) of the half of the ring that contains the current targets. */
	__u32 ring_half;
	__u32 ring_size; /* number of targets */
	/* Number of the newest round in which the agent sends edge probes, or 0 if there was no round yet. */
	__u64 asked;
	/*
	 * The remaining members are for the answers to edge probes, with the fields that the agent's own packets have.
	 * ``wall``: the local wall time minus CLOCK_MONOTONIC.
	 */
	__s64 wall;
	__u64 record_digest;
	/* Time of the agent's last write to this structure, from which the age of the lease is computed. */
	__u64 renewed;
	__u8 key_id; /* the id of the active key */
	__u8 packet_flags;
	__u8 zero[6];
};

/* A key. The index in the map is the key id. */
struct xg_key {
	__u32 present;
	__u32 zero;
	/* The SipHash key, aligned to 8 bytes. */
	__u8 mac[16];
};

struct xg_node_key {
	__u8 addr[16];
	__be16 port;
	__u16 zero;
};

/* Values of xg_node.standing: the agent's view of a node */
#define XG_PRESENT 0
#define XG_SUSPECT 1
#define XG_GONE 2

/* The programs' record of one origin. An entry fills one cache line. Integers are in host order. */
struct xg_node {
	struct bpf_spin_lock lock;
	__u32 incarnation;
	__u64 highest; /* newest rumor sequence */
	/* Replay window (RFC 6479). Bit i is set if the program has seen the sequence highest - i. */
	__u64 window;
	/* Time of the origin's last sign of life, CLOCK_MONOTONIC in ns, or 0 if there was no sign of life. */
	__u64 last_seen;
	/* The origin's wall time minus this host's CLOCK_MONOTONIC, from the newest packet. */
	__s64 clock;
	/* Documents digest in the newest packet. */
	__u64 documents_digest;
	__u64 record_digest;
	__u8 standing;
	/* Flags of the newest packet. */
	__u8 flags;
	/* Number of rumors that the programs have accepted in the slot ``slot``. */
	__u16 rumors;
	__u32 slot;
};

/*
 * The programs' record of the direct packets of one node. The entry has no lock, so two CPUs may both accept the same
 * packet at the same time. The agent's own replay window rejects the second copy.
 */
struct xg_direct {
	__u32 incarnation;
	__u32 slot;
	/* Number of packets that the programs have passed to the stack in the slot ``slot``. */
	__u64 passed;
	__u64 highest;
	/*
	 * The replay window (RFC 6479). Bit s % 64 of word s / 64 % XG_DIRECT_WORDS is set if the program has seen
	 * sequence s.
	 */
	__u64 window[XG_DIRECT_WORDS];
};

/*
 * The programs' record of the edge probes of one node. The entry has no lock, so two CPUs may both answer the same
 * probe if they receive it at the same time.
 */
struct xg_asker {
	__u32 incarnation;
	__u32 slot;
	/* Number of probes that the programs have answered in the slot ``slot``. */
	__u64 answered;
	__u64 round; /* newest answered round */
};

/* The programs' record of the edge acknowledgements of one node: its newest one, and the rounds before. */
struct xg_ack {
	__u32 incarnation;
	__u32 lease_age; /* milliseconds */
	__u64 newest;	 /* newest acknowledged round */
	/* Bit i is set if the node has acknowledged the round newest - i. */
	__u64 window;
	__u64 last_seen; /* CLOCK_MONOTONIC ns */
	/* The node's wall time minus this host's CLOCK_MONOTONIC. */
	__s64 clock;
	__u64 documents_digest;
	__u64 record_digest;
	__u8 flags;
	__u8 zero[7];
};

/*
 * A member to which the programs relay rumors. Each cycle the agent shuffles the members into the half of the ring
 * that is not in use.
 */
struct xg_target {
	__u8 addr[16];
	__be16 port;
	__u8 zero[6];
};

/* The next hop for an address: the MAC addresses and the interface of frames to that address. */
struct xg_nexthop {
	__u8 dst[6];
	__u8 src[6];
	__u32 ifindex;
	__u64 learnt; /* CLOCK_MONOTONIC ns */
};

/*
 * A network (struct bpf_lpm_trie_key), which is the key of an entry in the map ``allow``. The value of the entry says
 * whether the programs accept packets from that network.
 */
struct xg_allow_key {
	/* Length of the prefix in bits, at most 128. */
	__u32 prefix;
	__u8 addr[16]; /* IPv6 or IPv4-mapped */
};

/*
 * The key of an entry that counts dropped packets: the source address and the verdict of the packets. The programs
 * record at most one packet per CPU and tick, so that a flood of packets does not cause more work. A forged packet
 * may have a forged source address.
 */
struct xg_refusal_key {
	__u8 addr[16];
	/* Index of the verdict's counter. */
	__u32 verdict;
	__u32 zero;
};

struct xg_refusal {
	__u64 samples;
	__u64 last; /* CLOCK_MONOTONIC ns */
};

/* xg_event.kind */
/* The kernel has accepted, recorded and relayed the packet, and the agent processes the packet. */
#define XG_EVENT_NEWS 1
/* The packet is authentic, and the agent decides whether to accept and relay the packet. */
#define XG_EVENT_ASK 2
/* The programs have found no next hop, so the agent sends the packet to ``addr`` and ``port`` through the stack. */
#define XG_EVENT_UNRESOLVED 3

/* The header of an item in the ring buffer. In the ring buffer, the packet follows this header. */
struct xg_event {
	__u64 time; /* CLOCK_MONOTONIC ns */
	/*
	 * Source address of the packet. In an event XG_EVENT_UNRESOLVED, this field contains the address of the target.
	 */
	__u8 addr[16];
	__be16 port;
	/* Length of the packet in bytes. */
	__u16 length;
	__u8 kind;
	__u8 zero[3];
};

#endif
