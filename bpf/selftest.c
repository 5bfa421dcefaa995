/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The programs of the loader's self-test. xg_selftest_send sends a frame through both ports of a devmap at once, as the
 * data plane does for a rumor. xg_selftest_watch counts, at the kernel's tracepoint, how many of these copies the
 * driver sent. xg_selftest_knock makes a frame arrive at the interface, or leave through it. The frame passes one hook,
 * and the data plane's program at that hook has to count the frame.
 */
struct watched {
	/* Device and inode of the PID namespace in which pid identifies the loader. */
	u64 namespace_device;
	u64 namespace_inode;
	u32 pid;
	int sent;
	int dropped;
	/* The driver's result: 0 or -errno. */
	int code;
};

BPF_XDP_REDIRECT_MAP("devmap", struct bpf_devmap_val, ports, 2);
BPF_ARRAY(watched, struct watched, 1);

struct knock {
	u32 ifindex;
	/* BPF_F_INGRESS if the frame arrives at the interface, or 0 if the frame leaves through the interface. */
	u32 flags;
};

BPF_ARRAY(knock, struct knock, 1);

int xg_selftest_send(struct xdp_md *ctx)
{
	return ports.redirect_map(0, BPF_F_BROADCAST);
}

/* The arguments of the tracepoint are xdp_devmap_xmit(from, to, sent, drops, err): include/trace/events/xdp.h */
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

/*
 * Runs as a TC program in BPF_PROG_TEST_RUN. The cloned frame passes the same hooks as a received or sent frame, except
 * native XDP in the driver.
 */
int xg_selftest_knock(struct __sk_buff *skb)
{
	int zero = 0;
	struct knock *to = knock.lookup(&zero);

	return to ? bpf_clone_redirect(skb, to->ifindex, to->flags) : -1;
}
