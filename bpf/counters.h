/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Declares a counter for every verdict and every outcome of a packet. Each entry is X(name, description). This file
 * expands the list to a C enumeration, and dataplane/headers.py reads the names and help texts from the same list.
 * The position of a counter in the list is its index in the map ``counters``.
 */
#ifndef XG_COUNTERS_H
#define XG_COUNTERS_H

/* clang-format off */
#define XG_COUNTER_LIST(X) \
	/* Packets that the programs pass to the stack. */ \
	X(pass_odd,             "addressed to the agent, but with IP options, fragmented, or otherwise odd: passed on") \
	X(pass_no_agent,        "no agent has renewed its lease: passed on") \
	X(pass_direct,          "authentic packets to this node alone: passed to the agent's socket") \
	/* Packets that the programs drop, in the order of the checks. */ \
	X(drop_not_allowed,     "from an address that is in none of the networks of dataplane.allow") \
	X(drop_truncated,       "shorter than their type needs") \
	X(drop_malformed,       "no packet of this protocol") \
	X(drop_foreign_version, "of another wire version") \
	X(drop_foreign_cluster, "of another cluster") \
	X(drop_odd,             "odd ones beyond what is passed on in a slot of time") \
	X(drop_own,             "own rumors that came back") \
	X(drop_duplicate,       "copies of a rumor that was seen") \
	X(drop_unknown_key,     "of a key that is not held") \
	X(drop_bad_mac,         "forged, or of another secret") \
	X(drop_unknown_leave,   "a leave of a node that is not known") \
	X(drop_replayed,        "direct packets that were seen") \
	X(drop_direct_flood,    "direct packets beyond what one node may send in a slot of time") \
	X(drop_rumor_flood,     "rumors beyond what one origin may have relayed in a slot of time") \
	X(drop_probe_replayed,  "edge probes of a round that was answered, or of an earlier run of their sender") \
	X(drop_probe_flood,     "edge probes beyond what one node is answered in a slot of time") \
	X(drop_probe_source,    "edge probes from a source that gets no answer: a group, loopback, this node, or port 0") \
	X(drop_ack_stray,       "edge acknowledgements of a round that is not one of this node's last ones, or was recorded") \
	X(drop_edge_full,       "edge probes and acknowledgements for whose sender the kernel found no room") \
	/* Authentic packets about which only the agent can decide. */ \
	X(ask_own,              "own address under a later incarnation") \
	X(ask_incarnation,      "of an earlier run of their origin") \
	X(ask_gone,             "of nodes that are gone") \
	X(ask_time,             "from too far in the past or the future") \
	X(ask_full,             "of newcomers for whom there is no room") \
	X(ask_limited,          "not handed over: too many at once") \
	/* Edge probes and acknowledgements, which end in the programs. */ \
	X(take_ack,             "edge acknowledgements recorded") \
	X(answer,               "edge probes answered") \
	/* Rumors that the programs accept. */ \
	X(take_heartbeat,       "new heartbeats") \
	X(take_metadata,        "new metadata rumors") \
	X(take_leave,           "new leaves") \
	X(take_record,          "new node records") \
	X(take_alert,           "new alerts of observers") \
	X(take_newcomer,        "rumors of origins not known before") \
	X(news,                 "rumors handed to the agent because they bring something new") \
	X(news_lost,            "packets that found no room in the ring buffer") \
	/* Relaying. */ \
	X(relay,                "rumors relayed") \
	X(relay_ttl,            "rumors not relayed: their time to live was over") \
	X(relay_alone,          "rumors not relayed: there is nobody to relay to") \
	X(relay_failed,         "copies that the kernel refused to make or to send") \
	X(copy_due,             "copies asked for: copy, copy_surplus, copy_unresolved and relay_failed add up to it") \
	X(copy,                 "copies of others' rumors sent") \
	X(copy_surplus,         "copies not sent: every possible target has one") \
	X(copy_unresolved,      "copies handed to the agent: no next hop known for their target") \
	X(copy_again,           "copies sent once more, so that the driver sends those before (native XDP)") \
	X(copy_lost,            "copies addressed, and answers, that the driver then did not send (native XDP)") \
	/* The agent's own rumors. */ \
	X(fanout,               "own rumors multiplied at the way out") \
	X(fanout_copy,          "copies of own rumors sent") \
	X(fanout_forged,        "carriers not multiplied: their MAC is wrong, so another process sent them") \
	X(fanout_surplus,       "copies of own rumors not sent: every possible target has one") \
	X(fanout_unresolved,    "copies of own rumors handed to the agent: no next hop known for their target") \
	X(fanout_failed,        "copies of own rumors that the kernel refused to send") \
	/* Next hops. */ \
	X(hop_learnt,           "next hops learnt from what the stack sent") \
	X(hop_fib,              "next hops found in the FIB") \
	/* Answers that failed after their probe was counted. */ \
	X(answer_failed,        "answers to edge probes that could not be made or sent") \
	/* The loader's self-test (selftest.h). */ \
	X(selftest_ingress,     "self-test frames seen on the way in") \
	X(selftest_egress,      "self-test frames seen on the way out")

enum xg_counter {
#define XG_NAME(name, text) XG_COUNT_##name,
	XG_COUNTER_LIST(XG_NAME)
#undef XG_NAME
	XG_COUNTERS
};
/* clang-format on */

#endif
