/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the tests need beside the programs: compiled as the end of dataplane.c (harness.py). */

BPF_TABLE("array", __u32, struct xg_address, digest, 1);

/* The MAC of the frame taken as a packet, with the key of slot 0. */
int test_siphash(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct xg_key *key = xg_find_key(0);
	struct xg_address result;
	__u64 length = end - data;
	__u32 first = 0;

	if (!key || data + XG_HEADER_BYTES > end || !xg_siphash(key->mac, data, length, end, (void *)result.bytes))
		return XDP_ABORTED;
	digest.update(&first, &result);
	return XDP_PASS;
}

/* The kernel runs no devmap program for a test; this is the same one, on the interface that the frame came from. */
int test_xdp_egress(struct xdp_md *ctx)
{
	return xg_readdress(ctx, ctx->ingress_ifindex);
}

/* Empty, to be measured against. */
int test_xdp_nothing(struct xdp_md *ctx)
{
	return XDP_DROP;
}
