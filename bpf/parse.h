/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Finds the packet in an Ethernet frame. The programs handle frames that have no VLAN tag and contain a UDP packet over
 * IPv4 or IPv6 to the agent's address and port. The programs pass frames for other receivers to the stack, and do not
 * count such frames. If a frame for the agent is unusual, the programs pass the frame to the stack, which can
 * reassemble fragments and skip options.
 */
#ifndef XG_PARSE_H
#define XG_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "counters.h"
#include "tables.h"
#include "wire.h"

/* The programs read and write addresses and headers in words of these types, which may alias any declared type. */
typedef __u16 __attribute__((may_alias)) xg_u16;
typedef __u32 __attribute__((may_alias)) xg_u32;
typedef __u64 __attribute__((may_alias)) xg_u64;

/* Maximum number of 8-byte words in the body of a packet. */
#define XG_BODY_WORDS ((XG_DATAGRAM_BYTES - XG_HEADER_BYTES) / 8)

enum xg_whose { XG_OTHERS, XG_OURS, XG_ODD };

/* Mask for the field frag_off: at least one bit of the mask is set in every fragment. */
#define XG_IP_FRAGMENT 0x3fff
#define XG_IP_OFFSET 0x1fff

struct xg_frame {
	struct ethhdr *eth;
	union {
		struct iphdr *ip;
		struct ipv6hdr *ip6;
	};
	struct udphdr *udp;
	bool v6;
	/* Offset of the UDP header in the frame. */
	__u32 udp_offset;
	/* Length of the packet: UDP's payload. */
	__u32 length;
};

/* Returns whether an address is IPv4-mapped (RFC 4291, section 2.5.5.2). */
static __always_inline bool xg_is_mapped(const __u8 addr[16])
{
	const xg_u32 *word = (const xg_u32 *)addr;

	return !(word[0] | word[1] | (word[2] ^ bpf_htonl(0xffff)));
}

static __always_inline __be32 xg_mapped(const __u8 addr[16])
{
	return ((const xg_u32 *)addr)[3];
}

static __always_inline bool xg_equal(const void *one, const void *other)
{
	const xg_u64 *a = one, *b = other;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]));
}

/*
 * Copies an address word by word. For a memcpy, the compiler would copy single bytes, because the compiler does not
 * know the alignment of the address.
 */
static __always_inline void xg_copy_address(void *to, const void *from)
{
	xg_u64 *a = to;
	const xg_u64 *b = from;

	a[0] = b[0];
	a[1] = b[1];
}

static __always_inline void xg_copy_mac(void *to, const void *from)
{
	xg_u16 *a = to;
	const xg_u16 *b = from;

	a[0] = b[0];
	a[1] = b[1];
	a[2] = b[2];
}

static __always_inline void xg_map_address(void *addr, __be32 ip)
{
	xg_u32 *word = addr;

	word[0] = word[1] = 0;
	word[2] = bpf_htonl(0xffff);
	word[3] = ip;
}

/* Returns XG_ODD if a UDP header at an unusual offset has the agent's port as destination, else XG_OTHERS. */
static __always_inline enum xg_whose xg_odd(const struct udphdr *udp, void *end, __be16 port)
{
	if ((void *)(udp + 1) > end || udp->dest != port)
		return XG_OTHERS;
	return XG_ODD;
}

static __always_inline enum xg_whose xg_parse_ip(struct xg_frame *frame, void *end, const struct xg_config *local,
						 __u8 source[16])
{
	struct iphdr *ip = frame->ip = (void *)(frame->eth + 1);

	if ((void *)(ip + 1) > end)
		return XG_OTHERS;
	if (ip->protocol != IPPROTO_UDP || ip->daddr != xg_mapped(local->addr) || !xg_is_mapped(local->addr))
		return XG_OTHERS;
	xg_map_address(source, ip->saddr);
	if (ip->frag_off & bpf_htons(XG_IP_OFFSET))
		return XG_OTHERS; /* only the first fragment contains the UDP port */
	if (ip->ihl != 5 || ip->frag_off & bpf_htons(XG_IP_FRAGMENT))
		return xg_odd((void *)ip + ip->ihl * 4, end, local->port);
	frame->udp = (void *)(ip + 1);
	frame->udp_offset = sizeof(struct ethhdr) + sizeof(*ip);
	frame->length = bpf_ntohs(ip->tot_len) - sizeof(*ip);
	return XG_OURS;
}

static __always_inline bool xg_is_extension(__u8 header)
{
	return header == IPPROTO_HOPOPTS || header == IPPROTO_ROUTING || header == IPPROTO_DSTOPTS ||
	       header == IPPROTO_FRAGMENT;
}

/*
 * Maximum number of extension headers that xg_walk() skips. No ordinary host sends more extension headers, so
 * xg_walk() returns XG_ODD for a packet with more of these headers.
 */
#define XG_EXTENSIONS 6

/* Returns whether a packet with extension headers (RFC 8200, section 4) is for the agent. */
static __always_inline enum xg_whose xg_walk(struct ipv6hdr *ip6, void *end, __be16 port)
{
	struct ipv6_opt_hdr *extension = (void *)(ip6 + 1);
	__u8 header = ip6->nexthdr;
	__u64 size;

#pragma unroll
	for (int i = 0; i < XG_EXTENSIONS; i++) {
		if (!xg_is_extension(header) || (void *)(extension + 1) > end)
			return XG_OTHERS;
		size = header == IPPROTO_FRAGMENT ? 8 : (extension->hdrlen + 1) * 8;
		header = extension->nexthdr;
		extension = (void *)extension + size;
		if (header == IPPROTO_UDP)
			return xg_odd((void *)extension, end, port);
	}
	return xg_is_extension(header) ? XG_ODD : XG_OTHERS;
}

static __always_inline enum xg_whose xg_parse_ip6(struct xg_frame *frame, void *end, const struct xg_config *local,
						  __u8 source[16])
{
	struct ipv6hdr *ip6 = frame->ip6 = (void *)(frame->eth + 1);

	if ((void *)(ip6 + 1) > end || !xg_equal(&ip6->daddr, local->addr))
		return XG_OTHERS;
	xg_copy_address(source, &ip6->saddr);
	if (ip6->nexthdr != IPPROTO_UDP)
		return xg_walk(ip6, end, local->port);
	frame->udp = (void *)(ip6 + 1);
	frame->udp_offset = sizeof(struct ethhdr) + sizeof(*ip6);
	frame->length = bpf_ntohs(ip6->payload_len);
	return XG_OURS;
}

/*
 * Finds the headers of a frame, and returns whether the frame is for the agent. ``size``: the length of the whole
 * frame. The bytes from ``data`` to ``end`` may be only the first part of the frame. The function writes the address of
 * the sender to ``source``, unless the frame is for another receiver. The parser of each IP version reads the source
 * address itself. LLVM 19 compiles one branch for each IP version. After the two branches join, the verifier no longer
 * knows where either header ends.
 */
static __always_inline enum xg_whose xg_parse(struct xg_frame *frame, void *data, void *end, __u32 size,
					      const struct xg_config *local, __u8 source[16])
{
	enum xg_whose whose = XG_OTHERS;

	frame->eth = data;
	frame->length = 0;
	if ((void *)(frame->eth + 1) > end)
		return XG_OTHERS;
	frame->v6 = frame->eth->h_proto == bpf_htons(ETH_P_IPV6);
	if (frame->v6)
		whose = xg_parse_ip6(frame, end, local, source);
	else if (frame->eth->h_proto == bpf_htons(ETH_P_IP))
		whose = xg_parse_ip(frame, end, local, source);
	if (whose != XG_OURS)
		return whose;
	if ((void *)(frame->udp + 1) > end || frame->udp->dest != local->port)
		return XG_OTHERS;
	/* The lengths in the IP and UDP headers must agree, and lie within the frame. */
	if (frame->length != bpf_ntohs(frame->udp->len) || frame->length < sizeof(struct udphdr) ||
	    frame->udp_offset + frame->length > size)
		return XG_ODD;
	frame->length -= sizeof(struct udphdr);
	return XG_OURS;
}

/*
 * Locates the headers and the packet of a frame again, after xg_parse() has accepted the frame. After a loop over a
 * body, the verifier has a different state of the frame's pointers for every length of the body. A call of xg_locate()
 * after such a loop keeps the verifier from following each length of the body separately.
 */
static __always_inline struct xg_packet *xg_locate(struct xg_frame *frame, void *data, void *end, bool v6)
{
	struct xg_packet *packet;

	frame->eth = data;
	frame->ip = (void *)(frame->eth + 1);
	frame->v6 = v6;
	frame->udp = v6 ? (void *)(frame->ip6 + 1) : (void *)(frame->ip + 1);
	packet = (void *)(frame->udp + 1);
	if ((void *)(packet + 1) > end)
		return 0;
	frame->length = bpf_ntohs(frame->udp->len) - sizeof(struct udphdr);
	return packet;
}

/*
 * Records the source of a refused packet, at most one per CPU and tick. ``source`` is the address that xg_parse()
 * found.
 */
static __always_inline void xg_refuse(const __u8 source[16], __u32 verdict)
{
	struct xg_refusal_key key = {};

	/*
	 * This check comes first, because during a flood of forged packets every instruction before this check runs for
	 * each packet.
	 */
	if (!xg_refusal_due())
		return;
	key.verdict = verdict;
	xg_copy_address(key.addr, source);
	xg_note_refusal(&key);
}

static __always_inline void xg_source_of(const struct xg_frame *frame, __u8 addr[16])
{
	if (frame->v6)
		xg_copy_address(addr, &frame->ip6->saddr);
	else
		xg_map_address(addr, frame->ip->saddr);
}

#endif
