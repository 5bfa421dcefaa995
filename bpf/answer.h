/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Makes the answer to an edge probe out of the frame of the probe. The answer is as long as the probe, and goes to the
 * address and port from which the probe came.
 */
#ifndef XG_ANSWER_H
#define XG_ANSWER_H

#include "checksum.h"
#include "parse.h"
#include "relay.h"
#include "siphash.h"
#include "tables.h"
#include "wire.h"

/* Number of 32-bit words of a packet without a body. */
#define XG_HEADER_WORDS (XG_HEADER_BYTES / 4)
#define XG_NS_PER_MS 1000000

/* Returns the milliseconds since the agent's last write to the map ``config``, at most 2^32 - 1. */
static __always_inline __u32 xg_lease_age(const struct xg_config *local, __u64 now)
{
	__u64 age = now - local->renewed;

	/* The agent may have written after this program read the clock. */
	if ((__s64)age < 0)
		return 0;
	age /= XG_NS_PER_MS;
	return age < 0xffffffff ? age : 0xffffffff;
}

/*
 * Turns the frame round: its source becomes its destination. Neither the checksum of UDP nor the sum of its pseudo header depends on their order, so
 * only the checksum of IPv4 changes, by the hop limit.
 */
static __always_inline void xg_turn_round(struct xg_frame *frame)
{
	__be16 port = frame->udp->dest;
	__u64 addr[2];
	__u16 mac[3];
	__be32 ip;

	xg_copy_mac(mac, frame->eth->h_dest);
	xg_copy_mac(frame->eth->h_dest, frame->eth->h_source);
	xg_copy_mac(frame->eth->h_source, mac);
	if (frame->v6) {
		frame->ip6->hop_limit = XG_HOP_LIMIT;
		xg_copy_address(addr, &frame->ip6->daddr);
		xg_copy_address(&frame->ip6->daddr, &frame->ip6->saddr);
		xg_copy_address(&frame->ip6->saddr, addr);
	} else {
		frame->ip->ttl = XG_HOP_LIMIT;
		ip = frame->ip->daddr;
		frame->ip->daddr = frame->ip->saddr;
		frame->ip->saddr = ip;
		frame->ip->check = 0;
		frame->ip->check = xg_ip_checksum(frame->ip);
	}
	frame->udp->dest = frame->udp->source;
	frame->udp->source = port;
}

/*
 * Replaces a probe by its acknowledgement. Only the sequence, which is the round of the asker, stays. Returns false if
 * there is no key to sign with.
 */
static __always_inline bool xg_acknowledge(struct xg_packet *packet, const struct xg_config *local)
{
	const struct xg_key *key = xg_find_key(local->key_id);
	xg_u64 *mac = (xg_u64 *)packet->mac;
	__u64 now = bpf_ktime_get_ns(), tag[2];

	if (!key || !key->present)
		return false;
	packet->type = XG_EDGE_ACK;
	packet->key_id = local->key_id;
	packet->flags = local->packet_flags;
	packet->port = local->port;
	packet->incarnation = bpf_htonl(local->incarnation);
	xg_copy_address(packet->origin, local->addr);
	packet->wall_ns = bpf_htonll(now + local->wall);
	packet->documents_digest = bpf_htonll(local->documents_digest);
	packet->record_digest = bpf_htonll(local->record_digest);
	*(xg_u32 *)&packet->ttl = 0; /* the relay area */
	*(xg_u32 *)packet->salt = bpf_htonl(xg_lease_age(local, now));
	xg_siphash_header(key->mac, packet, tag);
	mac[0] = tag[0];
	mac[1] = tag[1];
	return true;
}

#endif
