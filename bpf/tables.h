/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Declares the functions through which the headers access the BPF tables. BCC translates the methods of a table in
 * the main file only, so dataplane.c defines these functions.
 */
#ifndef XG_TABLES_H
#define XG_TABLES_H

#include <uapi/linux/bpf.h>

#include "maps.h"

/*
 * A constant of which the compiler knows only that it is a constant: the instruction that loads a 64-bit number. The
 * loader replaces the number when it loads the program (dataplane/loader/container.py), so one compiled program serves
 * all hosts, and the verifier nevertheless sees a constant.
 */
#define XG_LOADED(number) \
	({ \
		__u64 loaded; \
		asm("%0 = %1 ll" : "=r"(loaded) : "i"(XG_PLACEHOLDER + (number))); \
		loaded; \
	})
/* Number of entries that the loader fills in the device map relay, and in the device map relay_wide. */
#ifndef XG_AMOUNT
#define XG_AMOUNT XG_LOADED(0)
#endif
#ifndef XG_WIDE
#define XG_WIDE XG_LOADED(1)
#endif

#define XG_EEXIST 17

struct xg_address {
	__u8 bytes[16];
};

/* A slot of time, and the number of packets that the programs passed in that slot. */
struct xg_allowance {
	__u32 slot;
	__u32 used;
};

/* The result of the steps of receive.h for a packet. */
struct xg_outcome {
	__u32 verdict;
	bool news;
	bool newcomer;
};

/* The scratch entry of a CPU: space for an event, and values that the programs keep from packet to packet. */
struct xg_scratch {
	/* Index of the next target in the ring. */
	__u32 cursor;
	/*
	 * ``ask`` counts the packets that the programs passed to the agent for a decision, and ``odd`` counts the
	 * unusual packets that the programs passed to the stack.
	 */
	struct xg_allowance ask;
	struct xg_allowance odd;
	/* Value of jiffies when the programs last read the coarse clock. */
	__u64 tick;
	/* The time of the coarse clock at ``tick``, in nanoseconds. */
	__u64 now;
	/* Value of jiffies when the programs last recorded the source of a refused packet. */
	__u64 refused;
	/* The first eight bytes of the MAC of the rumor that the program is copying. */
	__u64 rumor;
	__u32 copies;
	/* Number of targets that the program has examined so far for the current rumor. */
	__u32 walked;
	/* Number of frames of the current rumor on which the kernel has run xg_readdress() so far. */
	__u32 places;
	/* Number of copies that xg_readdress() has addressed since the last flush of a device queue. */
	__u32 flushing;
	/*
	 * True if the driver still has frames to send, and the kernel has not yet signalled the driver to send them
	 * (see xg_kick()).
	 */
	__u32 waiting;
	/* The target of the last copy, and the next hop to that target. */
	struct xg_target last;
	struct xg_nexthop last_hop;
	/*
	 * The following members are for the loop of tc.h that copies a rumor: the number of copies to make, and the targets
	 * of the copies.
	 */
	__u32 wanted;
	__u32 length; /* length of the packet */
	__u32 chosen;
	__u32 choice[XG_COPIES];
	struct xg_outcome outcome;
	/*
	 * Whether the agent's lease was over when the packet arrived. The value is in the scratch entry, because LLVM would
	 * make two copies of the code that follows if it knew the value, and the verifier would follow both.
	 */
	__u32 lease_over;
	struct xg_allow_key source;
	/* Zeros, which are the initial value of a new entry in the table ``directs``. */
	struct xg_direct blank;
	/* A new value of an entry in the table ``acks``. */
	struct xg_ack ack;
	struct xg_event event;
	__u8 packet[XG_DATAGRAM_BYTES + 8];
};

static __always_inline void xg_count_more(__u32 counter, __u64 more);
static __always_inline void xg_count(__u32 counter);
static __always_inline const struct xg_config *xg_local(void);
static __always_inline struct xg_scratch *xg_scratch(void);
static __always_inline __u64 xg_coarse_ns(void);
static __always_inline const struct xg_key *xg_find_key(__u8 key_id);
static __always_inline struct xg_node *xg_find_node(struct xg_node_key *key);
static __always_inline long xg_insert_node(struct xg_node_key *key, struct xg_node *node);
static __always_inline struct xg_direct *xg_find_direct(struct xg_node_key *key);
static __always_inline struct xg_asker *xg_find_asker(struct xg_node_key *key);
static __always_inline struct xg_ack *xg_find_ack(struct xg_node_key *key);
static __always_inline long xg_keep_ack(struct xg_node_key *key, struct xg_ack *ack);
static __always_inline const __u8 *xg_find_allowed(struct xg_allow_key *key);
static __always_inline const struct xg_target *xg_find_target(__u32 index);
static __always_inline struct xg_nexthop *xg_find_hop(const void *addr);
static __always_inline long xg_keep_hop(const void *addr, struct xg_nexthop *hop);
static __always_inline bool xg_refusal_due(void);
static __always_inline void xg_note_refusal(struct xg_refusal_key *key);
static __always_inline long xg_output(void *event, __u64 size);
static __always_inline int xg_broadcast(bool wide);
static __always_inline int xg_send_back(void);

/*
 * An optimisation barrier. LLVM may compare a copy of a value, or a value derived from it, and then use the original
 * value. Without XG_KEEP, the verifier may not see that the used value is bounded. With XG_KEEP before and after a
 * comparison, LLVM compares and uses the value in the same register, so the verifier sees the bound.
 */
#define XG_KEEP(variable) asm volatile("" : "+r"(variable))

#endif
