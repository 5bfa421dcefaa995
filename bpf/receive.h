/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Decides in several steps whether to accept a packet. The cheapest step comes first. tests/kernel_model.py models
 * the same steps in Python. Each step returns a verdict, or XG_GO_ON to continue with the next step. A verdict is the
 * index of the counter for that verdict.
 */
#ifndef XG_RECEIVE_H
#define XG_RECEIVE_H

#include "counters.h"
#include "parse.h"
#include "siphash.h"
#include "tables.h"
#include "wire.h"

#define XG_GO_ON XG_COUNTERS

/* These macros rely on the order of the verdicts in counters.h, where all verdicts of a group are neighbours. */
#define XG_PASSES(verdict) ((verdict) < XG_COUNT_drop_not_allowed)
#define XG_DROPS(verdict) ((verdict) >= XG_COUNT_drop_not_allowed && (verdict) < XG_COUNT_ask_own)
#define XG_ASKS(verdict) ((verdict) >= XG_COUNT_ask_own && (verdict) < XG_COUNT_ask_limited)
/* Whether this verdict means that a program only has to pass the packet to the stack or drop the packet. */
#define XG_ENDS(verdict) \
	((verdict) < XG_COUNT_ask_own || (verdict) == XG_COUNT_ask_limited || (verdict) == XG_COUNT_take_ack)

/*
 * Whether the programs record the source of a dropped packet. The programs do not record the source of a duplicate or
 * of the agent's own rumor, because every member relays such packets to this host.
 */
#define XG_REFUSES(verdict) \
	(XG_DROPS(verdict) && (verdict) != XG_COUNT_drop_own && (verdict) != XG_COUNT_drop_duplicate)

/* A packet and the results of the steps for this packet. */
struct xg_rumor {
	const struct xg_config *local;
	const struct xg_frame *frame;
	struct xg_packet *packet;
	__u32 length;
	void *end; /* end of the frame */
	struct xg_node_key origin __attribute__((aligned(8)));
	bool newcomer;
	bool news;
};

/* The content of an authentic packet, in host order. */
struct xg_claim {
	__u32 incarnation;
	__u8 type;
	__u8 flags;
	__u64 sequence;
	/* The origin's wall time minus this host's CLOCK_MONOTONIC. */
	__s64 clock;
	__u64 documents_digest;
	__u64 record_digest;
	__u64 now;
};

static __always_inline __u32 xg_slot(__u64 now)
{
	return now >> XG_SLOT_BITS;
}

/*
 * Returns whether slot ``one`` is later than ``other``. The clocks of two CPUs may differ a little, and the coarse
 * clock may differ from the exact clock. A time in an earlier slot must therefore not reset the count of a later
 * slot.
 */
static __always_inline bool xg_later_slot(__u32 one, __u32 other)
{
	return (__s32)(one - other) > 0;
}

/* Counts a packet in ``allowance``, and returns whether the count of this slot is at most XG_ASK_LIMIT. */
static __always_inline bool xg_allow(struct xg_allowance *allowance)
{
	__u32 slot = xg_slot(xg_coarse_ns());

	if (xg_later_slot(slot, allowance->slot)) {
		allowance->slot = slot;
		allowance->used = 0;
	}
	return allowance->used++ < XG_ASK_LIMIT;
}

static __always_inline bool xg_may_ask(void)
{
	struct xg_scratch *scratch = xg_scratch();

	return scratch && xg_allow(&scratch->ask);
}

/* Returns the verdict on an unusual packet, which only the stack can process. */
static __always_inline __u32 xg_take_odd(void)
{
	struct xg_scratch *scratch = xg_scratch();

	return scratch && xg_allow(&scratch->odd) ? XG_COUNT_pass_odd : XG_COUNT_drop_odd;
}

static __always_inline bool xg_lease_over(const struct xg_config *local)
{
	return xg_coarse_ns() > local->lease;
}

/*
 * Returns whether the setting dataplane.allow excludes the packet's source address. The lookup key is in the scratch
 * entry and not on the stack. With a key on the stack, the verifier would follow the code after this function twice,
 * with and without the key.
 */
static __always_inline bool xg_is_barred(struct xg_scratch *scratch, const struct xg_config *local)
{
	const __u8 *admitted;

	if (!(local->flags & XG_ALLOW))
		return false;
	scratch->source.prefix = 128;
	admitted = xg_find_allowed(&scratch->source);
	return !admitted || !*admitted;
}

/* Makes the same checks as NativeCodec.parse() in agent/xdp_gossip/wire/native.py. */
static __always_inline __u32 xg_check_shape(const struct xg_packet *packet, __u32 length, __be32 cluster)
{
	if (packet->magic != bpf_htons(XG_MAGIC))
		return XG_COUNT_drop_malformed;
	if (packet->version != XG_WIRE_VERSION)
		return XG_COUNT_drop_foreign_version;
	if (packet->cluster != cluster)
		return XG_COUNT_drop_foreign_cluster;
	if (packet->type < XG_HEARTBEAT || packet->type > XG_ALERT)
		return XG_COUNT_drop_malformed;
	if (!packet->port || !packet->incarnation || !packet->sequence)
		return XG_COUNT_drop_malformed;
	if (XG_BODILESS(packet->type)) {
		if (length != XG_HEADER_BYTES)
			return XG_COUNT_drop_malformed;
	} else if (length <= XG_HEADER_BYTES + XG_TAG_BYTES) {
		return XG_COUNT_drop_truncated;
	}
	return XG_GO_ON;
}

static __always_inline bool xg_is_of_this_node(const struct xg_packet *packet, const struct xg_config *local)
{
	return packet->port == local->port && xg_equal(packet->origin, local->addr);
}

static __always_inline void xg_name_origin(struct xg_rumor *rumor)
{
	xg_copy_address(rumor->origin.addr, rumor->packet->origin);
	rumor->origin.port = rumor->packet->port;
	rumor->origin.zero = 0;
}

static __always_inline bool xg_is_rumor(__u8 type)
{
	return type == XG_HEARTBEAT || type == XG_METADATA || type == XG_LEAVE || type == XG_RECORD || type == XG_ALERT;
}

/*
 * Checks the MAC of the whole packet, including its body. After this call the caller must not use pointers derived
 * from ``packet`` (the reason is at xg_siphash).
 */
static __always_inline __u32 xg_check_mac(const struct xg_packet *packet, __u32 length, void *end)
{
	const struct xg_key *key = xg_find_key(packet->key_id);
	const xg_u64 *mac = (const xg_u64 *)packet->mac;
	__u64 said[2] = {mac[0], mac[1]}, tag[2];

	if (!key || !key->present)
		return XG_COUNT_drop_unknown_key;
	if (!xg_siphash(key->mac, packet, length, end, tag))
		return XG_COUNT_drop_truncated;
	if ((tag[0] ^ said[0]) | (tag[1] ^ said[1]))
		return XG_COUNT_drop_bad_mac;
	return XG_GO_ON;
}

/* Checks the MAC of a packet without a body. */
static __always_inline __u32 xg_check_header_mac(const struct xg_packet *packet)
{
	const struct xg_key *key = xg_find_key(packet->key_id);
	const xg_u64 *mac = (const xg_u64 *)packet->mac;
	__u64 tag[2];

	if (!key || !key->present)
		return XG_COUNT_drop_unknown_key;
	xg_siphash_header(key->mac, packet, tag);
	if ((tag[0] ^ mac[0]) | (tag[1] ^ mac[1]))
		return XG_COUNT_drop_bad_mac;
	return XG_GO_ON;
}

/*
 * Returns whether a sequence is new according to the replay window. agent/xdp_gossip/core/members/window.py uses the
 * same rule.
 */
static __always_inline bool xg_fresh(const struct xg_node *node, __u64 sequence)
{
	__u64 highest = node->highest;

	if (sequence > highest)
		return true;
	return highest - sequence < 64 && !(node->window >> (highest - sequence) & 1);
}

static __always_inline void xg_mark(struct xg_node *node, __u64 sequence)
{
	__u64 highest = node->highest;

	if (sequence > highest) {
		node->window = sequence - highest < 64 ? node->window << (sequence - highest) | 1 : 1;
		node->highest = sequence;
	} else if (highest - sequence < 64) {
		node->window |= 1ULL << (highest - sequence);
	}
}

static __always_inline void xg_read_claim(struct xg_claim *claim, const struct xg_packet *packet)
{
	/*
	 * The coarse clock is exact enough for a heartbeat, and costs a tenth of the exact clock. Nearly all packets are
	 * heartbeats.
	 */
	claim->now = packet->type == XG_HEARTBEAT ? xg_coarse_ns() : bpf_ktime_get_ns();
	claim->incarnation = bpf_ntohl(packet->incarnation);
	claim->type = packet->type;
	claim->flags = packet->flags;
	claim->sequence = bpf_ntohll(packet->sequence);
	claim->clock = bpf_ntohll(packet->wall_ns) - claim->now;
	claim->documents_digest = bpf_ntohll(packet->documents_digest);
	claim->record_digest = bpf_ntohll(packet->record_digest);
}

/* Returns the absolute difference between the packet's clock and ``clock``, in nanoseconds. */
static __always_inline __u64 xg_off(const struct xg_claim *claim, __s64 clock)
{
	__u64 off = (__u64)claim->clock - clock;

	return (__s64)off < 0 ? -off : off;
}

/*
 * Returns whether incarnation ``one`` is earlier than ``other``. Incarnations are serial numbers (RFC 1982), as in
 * core/runs.py.
 */
static __always_inline bool xg_earlier(__u32 one, __u32 other)
{
	return (__s32)(one - other) < 0;
}

static __always_inline __u64 xg_wide_limit(const struct xg_config *local)
{
	return local->timeout > local->max_clock_drift ? local->timeout : local->max_clock_drift;
}

/*
 * Records the packet in the map entry of the packet's origin. The caller holds the entry's lock, or no other CPU can
 * see the entry yet. A program must not call a BPF helper under the lock, so this function calls no helper.
 */
static __always_inline void xg_note(struct xg_node *node, const struct xg_claim *claim)
{
	if (claim->sequence >= node->highest) {
		node->clock = claim->clock;
		node->documents_digest = claim->documents_digest;
		node->record_digest = claim->record_digest;
		node->flags = claim->flags;
	}
	xg_mark(node, claim->sequence);
	if (claim->type == XG_LEAVE)
		node->standing = XG_GONE;
	else if (!(claim->flags & XG_FLAG_PAUSED))
		node->last_seen = claim->now;
}

/*
 * Moves the replay window to a newer sequence, and clears the words of the window between the former and the newer
 * sequence.
 */
static __always_inline void xg_advance(struct xg_direct *direct, __u64 sequence)
{
	__u64 word = direct->highest / 64, words = sequence / 64 - word, at;

	for (int i = 0; i < XG_DIRECT_WORDS; i++) {
		if (i >= words)
			break;
		at = ++word & (XG_DIRECT_WORDS - 1);
		XG_KEEP(at);
		direct->window[at] = 0;
	}
	direct->highest = sequence;
}

/* Returns the verdict on an authentic direct packet. */
static __always_inline __u32 xg_take_direct(struct xg_rumor *rumor, __u32 incarnation, __u64 sequence)
{
	struct xg_direct *direct = xg_find_direct(&rumor->origin);
	__u64 word = sequence / 64 & (XG_DIRECT_WORDS - 1), bit = 1ULL << (sequence & 63);
	__u32 slot = xg_slot(xg_coarse_ns());

	if (!direct)
		return XG_COUNT_pass_direct;
	if (direct->incarnation != incarnation) {
		/*
		 * Either the packet is from an earlier run of the node, or the clock of the node was ahead when the
		 * recorded run began: the agent decides which of the two.
		 */
		if (direct->incarnation && xg_earlier(incarnation, direct->incarnation))
			return xg_may_ask() ? XG_COUNT_pass_direct : XG_COUNT_drop_direct_flood;
		direct->incarnation = incarnation;
		direct->highest = sequence;
#pragma unroll
		for (int i = 0; i < XG_DIRECT_WORDS; i++)
			direct->window[i] = 0;
	}
	if (sequence > direct->highest)
		xg_advance(direct, sequence);
	else if (direct->highest / 64 - sequence / 64 >= XG_DIRECT_WORDS || direct->window[word] & bit)
		return XG_COUNT_drop_replayed;
	if (xg_later_slot(slot, direct->slot)) {
		direct->slot = slot;
		direct->passed = 0;
	}
	if (direct->passed >= XG_DIRECT_LIMIT)
		return XG_COUNT_drop_direct_flood;
	direct->passed++;
	direct->window[word] |= bit;
	return XG_COUNT_pass_direct;
}

/*
 * Returns whether a probe from this source gets an answer. The answer to a recorded probe with a forged source must not
 * reach a group of hosts, or this host.
 */
static __always_inline bool xg_is_answerable(const struct xg_frame *frame, const struct xg_config *local)
{
	__u8 first;

	if (frame->eth->h_source[0] & 1 || !frame->udp->source)
		return false;
	if (frame->v6)
		return frame->ip6->saddr.s6_addr[0] != 0xff && !xg_equal(&frame->ip6->saddr, local->addr);
	first = *(const __u8 *)&frame->ip->saddr;
	/* "This network", loopback, multicast and broadcast (RFC 6890). */
	return first && first != 127 && first < 224 && frame->ip->saddr != xg_mapped(local->addr);
}

/* Returns the verdict on an authentic edge probe. A node gets one answer for each of its rounds. */
static __always_inline __u32 xg_take_probe(struct xg_rumor *rumor, __u32 incarnation, __u64 round)
{
	struct xg_asker *asker;
	__u32 slot = xg_slot(xg_coarse_ns());

	if (!xg_is_answerable(rumor->frame, rumor->local))
		return XG_COUNT_drop_probe_source;
	asker = xg_find_asker(&rumor->origin);
	if (!asker)
		return XG_COUNT_drop_edge_full;
	if (asker->incarnation != incarnation) {
		if (asker->incarnation && xg_earlier(incarnation, asker->incarnation))
			return XG_COUNT_drop_probe_replayed;
		asker->incarnation = incarnation;
		asker->round = 0;
	}
	if (round <= asker->round)
		return XG_COUNT_drop_probe_replayed;
	if (xg_later_slot(slot, asker->slot)) {
		asker->slot = slot;
		asker->answered = 0;
	}
	if (asker->answered >= XG_PROBE_LIMIT)
		return XG_COUNT_drop_probe_flood;
	asker->answered++;
	asker->round = round;
	return XG_COUNT_answer;
}

/* Returns whether a round is one of the agent's last XG_ROUNDS rounds. */
static __always_inline bool xg_is_asked(const struct xg_config *local, __u64 round)
{
	return round <= local->asked && local->asked - round < XG_ROUNDS;
}

/* Records an authentic edge acknowledgement of one of the agent's last rounds, and returns the verdict. */
static __always_inline __u32 xg_take_ack(struct xg_rumor *rumor, __u32 incarnation, __u64 round)
{
	struct xg_ack *known = xg_find_ack(&rumor->origin), *ack;
	const struct xg_packet *packet = rumor->packet;
	struct xg_scratch *scratch = xg_scratch();
	__u64 now = bpf_ktime_get_ns(), window = 1, apart;

	if (!scratch)
		return XG_COUNT_drop_edge_full;
	/* An entry of other rounds is of an earlier run of the agent, or too old. */
	if (known && xg_is_asked(rumor->local, known->newest)) {
		if (round <= known->newest) {
			apart = known->newest - round;
			if (incarnation != known->incarnation || apart >= XG_ROUNDS || known->window >> apart & 1)
				return XG_COUNT_drop_ack_stray;
			known->window |= 1ULL << apart;
			known->last_seen = now;
			return XG_COUNT_take_ack;
		}
		apart = round - known->newest;
		if (incarnation == known->incarnation && apart < XG_ROUNDS)
			window |= known->window << apart;
	}
	ack = &scratch->ack;
	ack->incarnation = incarnation;
	ack->lease_age = bpf_ntohl(*(const xg_u32 *)packet->salt);
	ack->newest = round;
	ack->window = window;
	ack->last_seen = now;
	ack->clock = bpf_ntohll(packet->wall_ns) - now;
	ack->documents_digest = bpf_ntohll(packet->documents_digest);
	ack->record_digest = bpf_ntohll(packet->record_digest);
	ack->flags = packet->flags;
	return xg_keep_ack(&rumor->origin, ack) ? XG_COUNT_drop_edge_full : XG_COUNT_take_ack;
}

/*
 * Returns the verdict on an edge probe or an edge acknowledgement. These packets have no body, enter no replay window,
 * and never reach the agent.
 */
static __always_inline __u32 xg_take_edge(struct xg_rumor *rumor)
{
	const struct xg_packet *packet = rumor->packet;
	__u32 incarnation = bpf_ntohl(packet->incarnation), verdict;
	bool probe = packet->type == XG_EDGE_PROBE;
	struct xg_scratch *scratch = xg_scratch();
	__u64 round = bpf_ntohll(packet->sequence);

	if (!scratch || (scratch->lease_over && !probe))
		return XG_COUNT_pass_no_agent;
	if (scratch->lease_over && xg_is_barred(scratch, rumor->local))
		return XG_COUNT_drop_not_allowed;
	if (xg_is_of_this_node(packet, rumor->local))
		return XG_COUNT_drop_own;
	if (!probe && !xg_is_asked(rumor->local, round))
		return XG_COUNT_drop_ack_stray;
	verdict = xg_check_header_mac(packet);
	if (verdict != XG_GO_ON)
		return verdict;
	xg_name_origin(rumor);
	return probe ? xg_take_probe(rumor, incarnation, round) : xg_take_ack(rumor, incarnation, round);
}

/*
 * Creates the entry of an unknown origin, and returns the verdict. Returns XG_GO_ON if another CPU has just created
 * the entry.
 */
static __always_inline __u32 xg_take_newcomer(struct xg_rumor *rumor, const struct xg_claim *claim, __u32 taken)
{
	struct xg_node node = {};
	long error;

	if (claim->type == XG_LEAVE)
		return XG_COUNT_drop_unknown_leave;
	/*
	 * The programs do not know the clock of this origin, so the packet may be a replay. The difference between the
	 * packet's time and the cluster's time therefore has a lower limit than for a member whose clock the programs
	 * know.
	 */
	if (xg_off(claim, rumor->local->clock) > rumor->local->timeout)
		return XG_COUNT_ask_time;
	node.incarnation = claim->incarnation;
	xg_note(&node, claim);
	error = xg_insert_node(&rumor->origin, &node);
	if (error == -XG_EEXIST)
		return XG_GO_ON;
	if (error)
		return XG_COUNT_ask_full;
	rumor->newcomer = rumor->news = true;
	return taken;
}

/*
 * Marks the packet as seen, and returns the verdict. The packet is a duplicate if another CPU has already accepted a
 * copy.
 */
static __always_inline __u32 xg_commit(struct xg_rumor *rumor, struct xg_node *node, const struct xg_claim *claim,
				       __u32 taken)
{
	__u64 local_digest = rumor->local->documents_digest;
	bool news = claim->type != XG_HEARTBEAT;
	__u32 slot = xg_slot(claim->now);

	bpf_spin_lock(&node->lock);
	if (xg_earlier(claim->incarnation, node->incarnation) ||
	    (claim->incarnation == node->incarnation && !xg_fresh(node, claim->sequence))) {
		bpf_spin_unlock(&node->lock);
		return XG_COUNT_drop_duplicate;
	}
	if (xg_later_slot(slot, node->slot)) {
		node->slot = slot;
		node->rumors = 0;
	}
	if (node->rumors >= XG_RUMOR_LIMIT) {
		bpf_spin_unlock(&node->lock);
		return XG_COUNT_drop_rumor_flood;
	}
	node->rumors++;
	if (claim->incarnation != node->incarnation) {
		node->incarnation = claim->incarnation;
		node->highest = node->window = 0;
		news = true;
	}
	if (claim->sequence >= node->highest) {
		news |= claim->record_digest != node->record_digest || claim->flags != node->flags;
		news |= claim->documents_digest != node->documents_digest && claim->documents_digest != local_digest;
	}
	xg_note(node, claim);
	bpf_spin_unlock(&node->lock);
	rumor->news = news;
	return taken;
}

static __always_inline __u32 xg_take_known(struct xg_rumor *rumor, struct xg_node *node, const struct xg_claim *claim,
					   __u32 taken)
{
	const struct xg_config *local = rumor->local;

	if (xg_earlier(claim->incarnation, node->incarnation))
		return XG_COUNT_ask_incarnation;
	if (node->standing == XG_GONE)
		return XG_COUNT_ask_gone;
	if (xg_off(claim, node->clock) > (node->standing == XG_PRESENT ? xg_wide_limit(local) : local->timeout))
		return XG_COUNT_ask_time;
	return xg_commit(rumor, node, claim, taken);
}

static __always_inline __u32 xg_taken(__u8 type)
{
	switch (type) {
	case XG_HEARTBEAT:
		return XG_COUNT_take_heartbeat;
	case XG_METADATA:
		return XG_COUNT_take_metadata;
	case XG_LEAVE:
		return XG_COUNT_take_leave;
	case XG_ALERT:
		return XG_COUNT_take_alert;
	}
	return XG_COUNT_take_record;
}

/*
 * Stores two values in the scratch entry: the verdict on a rumor, and whether the rumor contains news. The caller reads
 * both values from the scratch entry. If the verdict stayed in a register, the verifier would follow each value
 * separately to the program's end, through all loops that make copies.
 */
static __always_inline void xg_settle(struct xg_scratch *scratch, const struct xg_rumor *rumor, __u32 verdict)
{
	struct xg_outcome *outcome = &scratch->outcome;

	outcome->verdict = verdict;
	outcome->news = rumor->news;
	outcome->newcomer = rumor->newcomer;
	asm volatile("" : : : "memory");
}

/*
 * Runs all steps after xg_screen() for a packet, and returns the verdict. The packet's header must lie within the
 * frame.
 */
static __always_inline __u32 xg_receive(struct xg_rumor *rumor)
{
	const struct xg_packet *packet = rumor->packet;
	__u32 incarnation, verdict, then = XG_GO_ON;
	struct xg_scratch *scratch = xg_scratch();
	__u64 sequence;
	struct xg_node *node = 0;
	struct xg_claim claim;

	verdict = xg_check_shape(packet, rumor->length, rumor->local->cluster);
	if (verdict == XG_GO_ON && XG_IS_EDGE(packet->type))
		return xg_take_edge(rumor);
	if (!scratch || scratch->lease_over)
		return XG_COUNT_pass_no_agent;
	if (verdict != XG_GO_ON)
		return verdict;
	incarnation = bpf_ntohl(packet->incarnation);
	sequence = bpf_ntohll(packet->sequence);
	xg_name_origin(rumor);

	if (xg_is_of_this_node(packet, rumor->local)) {
		if (!xg_earlier(rumor->local->incarnation, incarnation))
			return XG_COUNT_drop_own;
		then = XG_COUNT_ask_own;
	} else if (!xg_is_rumor(packet->type)) {
		then = XG_COUNT_pass_direct;
	} else {
		node = xg_find_node(&rumor->origin);
		/*
		 * This check takes no lock, so that a duplicate costs little. xg_commit() repeats this check under the lock.
		 */
		if (node && incarnation == node->incarnation && !xg_fresh(node, sequence))
			return XG_COUNT_drop_duplicate;
	}

	if (then == XG_GO_ON)
		xg_read_claim(&claim, packet);
	verdict = xg_check_mac(packet, rumor->length, rumor->end);
	if (verdict != XG_GO_ON)
		return verdict;
	if (then == XG_COUNT_pass_direct)
		return xg_take_direct(rumor, incarnation, sequence);
	if (then != XG_GO_ON)
		return then;

	if (!node) {
		verdict = xg_take_newcomer(rumor, &claim, xg_taken(claim.type));
		if (verdict != XG_GO_ON)
			return verdict;
		node = xg_find_node(&rumor->origin);
		if (!node)
			return XG_COUNT_ask_full;
	}
	return xg_take_known(rumor, node, &claim, xg_taken(claim.type));
}

/*
 * Returns a verdict that does not depend on the content of the packet, or XG_GO_ON if the content decides. ``odd``:
 * whether only the stack can process the frame. ``length``: the length of the packet. ``whole``: false if the
 * packet's header is known to end beyond the frame. While the agent's lease is over, only packets without a body go on.
 */
static __always_inline __u32 xg_screen(struct xg_scratch *scratch, const struct xg_config *local, bool odd,
				       __u32 length, bool whole)
{
	if (!(local->flags & XG_RUNNING))
		return XG_COUNT_pass_no_agent;
	scratch->lease_over = xg_lease_over(local);
	asm volatile("" : : : "memory");
	if (scratch->lease_over && (odd || length != XG_HEADER_BYTES || !whole))
		return XG_COUNT_pass_no_agent;
	/* xg_take_edge() makes this check for a probe while the lease is over. All other packets then pass. */
	if (!scratch->lease_over && xg_is_barred(scratch, local))
		return XG_COUNT_drop_not_allowed;
	if (odd || length > XG_DATAGRAM_BYTES)
		return xg_take_odd();
	if (length < XG_HEADER_BYTES || !whole)
		return XG_COUNT_drop_truncated;
	return XG_GO_ON;
}

/*
 * Counts the verdict on a packet, and counts whether the packet's origin is new and whether the packet contains news.
 * Returns true if the caller only has to pass the packet to the stack (if XG_PASSES is true) or drop the packet.
 * Returns false if the caller has to process the packet as scratch->outcome says.
 */
static __always_inline bool xg_judge(struct xg_scratch *scratch, const struct xg_rumor *rumor, __u32 *verdict)
{
	if (XG_ASKS(*verdict) && !xg_may_ask())
		*verdict = XG_COUNT_ask_limited;
	xg_count(*verdict);
	if (XG_ENDS(*verdict)) {
		if (XG_REFUSES(*verdict))
			xg_refuse(scratch->source.addr, *verdict);
		return true;
	}
	xg_settle(scratch, rumor, *verdict);
	if (scratch->outcome.newcomer)
		xg_count(XG_COUNT_take_newcomer);
	if (scratch->outcome.news)
		xg_count(XG_COUNT_news);
	return false;
}

#endif
