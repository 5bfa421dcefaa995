/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The packet, as in docs/wire.md and agent/xdp_gossip/wire/native.py. All integers are big-endian, every field
 * is naturally aligned. Python reads the XG_ constants of this file from here (dataplane/headers.py).
 */
#ifndef XG_WIRE_H
#define XG_WIRE_H

#define XG_MAGIC 0x5847 /* "XG" */
#define XG_WIRE_VERSION 2

#define XG_HEARTBEAT 1
#define XG_SWAP_REQUEST 2
#define XG_SWAP_RESPONSE 3
#define XG_METADATA 4
#define XG_LEAVE 5
#define XG_RECORD 6
#define XG_PROBE 7

/* Flags of the signed block. */
#define XG_FLAG_PAUSED 0x01

/* The types that have no body. */
#define XG_BODILESS(type) ((type) == XG_HEARTBEAT || (type) == XG_LEAVE)

#define XG_BLOCK_BYTES 64
#define XG_MAC_BYTES 16
#define XG_SEALED_AT 84 /* what follows the relay area, and is signed too */
#define XG_HEADER_BYTES 88
#define XG_TAG_BYTES 16 /* of a sealed body */
/* Longest datagram that agents send: IPv6's least MTU less its header and UDP's (RFC 8200, section 5). */
#define XG_DATAGRAM_BYTES 1232

struct xg_packet {
	/* The signed block: written by the origin, never changed. */
	__be16 magic;
	__u8 version;
	__u8 type;
	__be32 cluster;
	__u8 key_slot;
	__u8 flags;
	__be16 port;
	__be32 incarnation;
	__be64 sequence;
	__u8 origin[16]; /* IPv6, or IPv4-mapped */
	__be64 wall_ns;
	__be64 state_digest;
	__be64 record_digest;

	__u8 mac[XG_MAC_BYTES];

	/* The relay area, four bytes: changed on the way, not signed, holds no authority. */
	__u8 ttl;
	__u8 hops;
	/*
	 * On the way from the agent to its own TC egress: how many members it is for. Within a host's generic XDP:
	 * whether the checksum is half done. 0 everywhere else.
	 */
	__u8 fanout;
	__u8 zero;

	__u8 salt[4]; /* signed again, as is the body after it: of the body's key */
};

#endif
