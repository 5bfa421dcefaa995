/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The loader's self-test. xg_selftest_send sends a frame by both ports of a devmap at once, as relaying does;
 * xg_selftest_watch watches at the kernel's tracepoint how many of these copies the driver took. xg_selftest_knock makes
 * a frame arrive at the interface, or leave by it, as one of anybody's: the program at the hook has to count it.
 */
struct watched {
	u64 namespace_device; /* the process whose frames count, and the namespace that its number is of */
	u64 namespace_inode;
	u32 pid;
	int sent;
	int dropped;
	int code; /* the driver's: 0 or -errno */
};

BPF_XDP_REDIRECT_MAP("devmap", struct bpf_devmap_val, ports, 2);
BPF_ARRAY(watched, struct watched, 1);

struct knock {
	u32 ifindex;
	u32 flags; /* BPF_F_INGRESS: arrive; 0: leave */
};

BPF_ARRAY(knock, struct knock, 1);

int xg_selftest_send(struct xdp_md *ctx)
{
	return ports.redirect_map(0, BPF_F_BROADCAST);
}

/* xdp_devmap_xmit(from, to, sent, drops, err): include/trace/events/xdp.h */
int xg_selftest_watch(struct bpf_raw_tracepoint_args *ctx)
{
	int zero = 0;
	struct watched *watch = watched.lookup(&zero);
	struct bpf_pidns_info own = {};

	if (!watch || bpf_get_ns_current_pid_tgid(watch->namespace_device, watch->namespace_inode, &own, sizeof(own)) ||
	    own.tgid != watch->pid)
		return 0;
	watch->sent += (int)ctx->args[2];
	watch->dropped += (int)ctx->args[3];
	watch->code = (int)ctx->args[4];
	return 0;
}

/* At TC, in a test run. The hooks that the frame passes are those of a real one, but for XDP in the driver. */
int xg_selftest_knock(struct __sk_buff *skb)
{
	int zero = 0;
	struct knock *to = knock.lookup(&zero);

	return to ? bpf_clone_redirect(skb, to->ifindex, to->flags) : -1;
}
