/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the headers know of the tables. BCC translates a table's methods in the main file only, so the functions that
 * are declared here stand in dataplane.c.
 */
#ifndef XG_TABLES_H
#define XG_TABLES_H

#include <uapi/linux/bpf.h>

#include "maps.h"

/* Copies of a rumor, in the device maps relay and relay_wide: the loader says how many. */
#ifndef XG_AMOUNT
#define XG_AMOUNT XG_COPIES
#endif
#ifndef XG_WIDE
#define XG_WIDE XG_COPIES
#endif

#define XG_EEXIST 17

struct xg_address {
	__u8 bytes[16];
};

/* How many packets were let through in a slot of time. */
struct xg_allowance {
	__u32 slot;
	__u32 used;
};

/* What a packet came to. */
struct xg_outcome {
	__u32 verdict;
	bool news;
	bool newcomer;
};

/* Room for an event, and for what a CPU remembers from packet to packet. */
struct xg_scratch {
	__u32 cursor; /* the next target in the ring */
	/* Packets that may ask, and odd ones, in the slot of each. */
	struct xg_allowance ask;
	struct xg_allowance odd;
	__u64 tick;    /* the jiffies at which the coarse clock was read */
	__u64 now;     /* what it said */
	__u64 refused; /* the jiffies at which the source of a refused packet was noted */
	/* The rumor whose copies are being made: the first bytes of its MAC. */
	__u64 rumor;
	__u32 copies;
	__u32 walked; /* targets looked at for it */
	__u32 places; /* frames of it that the device queue held so far */
	/* Copies addressed since the last flush of a device queue. */
	__u32 flushing;
	/* Whether the driver holds frames that it was not told to send (xg_kick). */
	__u32 waiting;
	/* The last copy's target and how it left. */
	struct xg_target last;
	struct xg_nexthop last_hop;
	/* Indices of the targets that get a copy in the loop of tc.h. */
	__u32 wanted;
	__u32 length; /* of the packet */
	__u32 chosen;
	__u32 choice[XG_COPIES];
	struct xg_outcome outcome;
	struct xg_allow_key source;
	struct xg_direct blank; /* nobody writes into it */
	struct xg_event event;
	__u8 packet[XG_DATAGRAM_BYTES + 8];
};

static __always_inline void xg_count_more(__u32 counter, __u64 more);
static __always_inline void xg_count(__u32 counter);
static __always_inline const struct xg_config *xg_local(void);
static __always_inline struct xg_scratch *xg_scratch(void);
static __always_inline __u64 xg_coarse_ns(void);
static __always_inline const struct xg_key *xg_find_key(__u8 slot);
static __always_inline struct xg_node *xg_find_node(struct xg_node_key *key);
static __always_inline long xg_insert_node(struct xg_node_key *key, struct xg_node *node);
static __always_inline struct xg_direct *xg_find_direct(struct xg_node_key *key);
static __always_inline const __u8 *xg_find_allowed(struct xg_allow_key *key);
static __always_inline const struct xg_target *xg_find_target(__u32 index);
static __always_inline struct xg_nexthop *xg_find_hop(const void *addr);
static __always_inline long xg_keep_hop(const void *addr, struct xg_nexthop *hop);
static __always_inline bool xg_refusal_due(void);
static __always_inline void xg_note_refusal(struct xg_refusal_key *key);
static __always_inline long xg_output(void *event, __u64 size);
static __always_inline int xg_broadcast(bool wide);

/*
 * An optimisation barrier. LLVM may compare one copy of a value and use another, or replace the comparison by one of a
 * value derived from it; the verifier then does not see that what is used is bounded. A value kept before and after its
 * comparison is one register to both.
 */
#define XG_KEEP(variable) asm volatile("" : "+r"(variable))

#endif
