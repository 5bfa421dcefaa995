/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The format of a packet, as in docs/wire.md and agent/xdp_gossip/wire/native.py. All integers are big-endian, and
 * every field is naturally aligned. Python reads the XG_ constants from this file (dataplane/headers.py).
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
#define XG_EDGE_PROBE 8
#define XG_EDGE_ACK 9
#define XG_ALERT 10

/* Flags in the signed block. */
#define XG_FLAG_PAUSED 0x01

/* Whether packets of this type have no body. */
#define XG_BODILESS(type) ((type) == XG_HEARTBEAT || (type) == XG_LEAVE || XG_IS_EDGE(type))
/* Whether the packet is an observer's question or the answer to it, which the programs process without the agent. */
#define XG_IS_EDGE(type) ((type) == XG_EDGE_PROBE || (type) == XG_EDGE_ACK)

#define XG_BLOCK_BYTES 64
#define XG_MAC_BYTES 16
/* Offset of the first byte after the relay area. The MAC covers all bytes from this offset on. */
#define XG_SEALED_AT 84
#define XG_HEADER_BYTES 88
/* Length of the tag of an encrypted body. */
#define XG_TAG_BYTES 16
/*
 * Longest datagram that agents send: the smallest MTU of IPv6 less the headers of IPv6 and UDP (RFC 8200, section 5).
 */
#define XG_DATAGRAM_BYTES 1232

struct xg_packet {
	/*
	 * The signed block. The origin writes the signed block, and members that relay the packet do not change the
	 * block.
	 */
	__be16 magic;
	__u8 version;
	__u8 type;
	__be32 cluster;
	__u8 key_id;
	__u8 flags;
	__be16 port;
	__be32 incarnation;
	__be64 sequence;
	__u8 origin[16]; /* IPv6, or IPv4-mapped */
	__be64 wall_ns;
	__be64 documents_digest;
	__be64 record_digest;

	__u8 mac[XG_MAC_BYTES];

	/*
	 * The relay area, four bytes. Members that relay the packet change the relay area. The MAC does not cover the relay
	 * area, and no check relies on the relay area.
	 */
	__u8 ttl;
	__u8 hops;
	/*
	 * In a packet that the agent sends through its own TC egress program, fanout is the number of members to which the
	 * program copies the packet. Between the two programs of generic XDP on a host, fanout is 1 if the packet's UDP
	 * checksum is half done (see xg_is_half()). In every other packet fanout is 0.
	 */
	__u8 fanout;
	__u8 zero;

	/*
	 * Salt of the body's key. The MAC covers the salt and the body, which follows the salt. In an edge acknowledgement:
	 * milliseconds since the agent of the answering host last renewed its lease, big-endian.
	 */
	__u8 salt[4];
};

#endif
