/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Baseline programs to compare the data plane with. They drop every frame, or copy and readdress every frame, without
 * any protocol.
 */
#include <uapi/linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#define TARGETS 256

struct target {
	__u8 dst[ETH_ALEN];
	__u8 src[ETH_ALEN];
	__be32 addr;
	__be32 source;
	__be16 port;
	__u16 zero;
};

BPF_ARRAY(targets, struct target, TARGETS);
BPF_PERCPU_ARRAY(position, u32, 1);
BPF_XDP_REDIRECT_MAP("devmap", struct bpf_devmap_val, copies, 64);
BPF_ARRAY(settings, u32, 2); /* interface of the copies, number of copies */

int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

int drop_tc(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

int spread(struct xdp_md *ctx)
{
	return copies.redirect_map(0, BPF_F_BROADCAST);
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* RFC 1624, equation 3. */
static __always_inline __u16 replaced(__u16 check, __u64 old, __u64 new)
{
	return ~fold((__u16)~check + (__u64)(__u16)~fold(old) + new);
}

static __always_inline int address(void *data, void *end)
{
	__u32 zero = 0, index;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	__u32 *next = position.lookup(&zero);
	struct target *target;

	if (!next || (void *)(udp + 1) > end)
		return -1;
	index = (*next)++ & (TARGETS - 1);
	target = targets.lookup(&index);
	if (!target)
		return -1;
	__builtin_memcpy(eth->h_dest, target->dst, ETH_ALEN);
	__builtin_memcpy(eth->h_source, target->src, ETH_ALEN);
	udp->check = replaced(udp->check, (__u64)ip->saddr + ip->daddr + udp->dest,
			      (__u64)target->source + target->addr + target->port);
	ip->check = replaced(ip->check, (__u64)ip->saddr + ip->daddr, (__u64)target->source + target->addr);
	ip->saddr = target->source;
	ip->daddr = target->addr;
	udp->dest = target->port;
	return 0;
}

int readdress(struct xdp_md *ctx)
{
	return address((void *)(long)ctx->data, (void *)(long)ctx->data_end) ? XDP_DROP : XDP_PASS;
}

int spread_tc(struct __sk_buff *skb)
{
	__u32 which = 0, *interface, *count, i;

	interface = settings.lookup(&which);
	which = 1;
	count = settings.lookup(&which);
	if (!interface || !count)
		return TC_ACT_SHOT;
	for (i = 0; i < 64 && i < *count; i++) {
		if (bpf_skb_pull_data(skb, 0))
			return TC_ACT_SHOT;
		if (address((void *)(long)skb->data, (void *)(long)skb->data_end))
			return TC_ACT_SHOT;
		if (bpf_clone_redirect(skb, *interface, 0))
			return TC_ACT_SHOT;
	}
	return TC_ACT_SHOT;
}
