package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// A real node: containerd, runc and kubelet, as root in namespaces that are the caller's, which end with him and take
// processes, mounts and interfaces with them. Pods are on a bridge, and reach the API server under the address that its
// Service has, since the node has that address itself: nothing in them knows that there is no kube-proxy.

const (
	nodeName  = "node-0"
	serviceIP = "10.0.0.1" // of the Service default/kubernetes, and in the certificates
)

// What the control plane does for a real node, besides what it does for fake ones.
var (
	nodeAPIServerArgs         = []string{"--bind-address=0.0.0.0", "--enable-aggregator-routing=true"} // Services without kube-proxy
	nodeControllerManagerArgs = []string{"--controllers=*", "--flex-volume-plugin-dir=volume-plugins"}
	kubeletArgs               = []string{"--config=kubelet.yaml", "--kubeconfig=kubelet.kubeconfig",
		"--cert-dir=kubelet-certificates", "--hostname-override=" + nodeName, "--node-ip=" + serviceIP}
	containerdArgs = []string{"--config=containerd.toml"}
)

// tunables are settings of the kernel that kubelet would change for the whole machine. It is shown that they are so.
var tunables = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// scratch are folders in which a node leaves things that no setting puts elsewhere: sockets, addresses, links to logs.
var scratch = []string{"/run", "/var/lib", "/var/log"}

const bridge = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "pods", "isGateway": true,
	"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
`

// restrict_oom_score_adj: without CAP_SYS_RESOURCE runc could not write the sandbox's -998.
const containerdConfig = `version = 3
root = "%[1]s/containerd"
state = "%[1]s/containerd-state"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "%[1]s/containerd.sock"
[ttrpc]
  address = "%[1]s/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/containerd-opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "%[2]s"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
    conf_dir = "%[1]s/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    runtime_path = "%[3]s/containerd-shim-runc-v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      Root = "%[1]s/runc"
      SystemdCgroup = false
`

// No image is ever removed: there is no registry to get it back from.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: ca.crt}}
authorization: {mode: AlwaysAllow}
tlsCertFile: kubelet.crt
tlsPrivateKeyFile: kubelet.key
cgroupDriver: cgroupfs
cgroupRoot: /%[2]s
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://%[3]s/containerd.sock
podLogsDir: %[3]s/pod-logs
volumePluginDir: %[3]s/volume-plugins
resolvConf: %[3]s/resolv.conf
clusterDNS: [%[1]s]
makeIPTablesUtilChains: false
enableControllerAttachDetach: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, nodefs.inodesFree: 1%%, imagefs.available: 1%%}
`

// prepareNode makes the network, and the files that containerd and kubelet read, besides kubelet's certificate.
func prepareNode(dir, bin, cgroup string) error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, one := range interfaces {
		if one.Flags&net.FlagUp != 0 {
			return fmt.Errorf("--node needs a new network namespace: in this one %s is up", one.Name)
		}
	}
	for _, args := range []string{"link set lo up", "address add " + serviceIP + "/32 dev lo"} {
		if err := command("ip", strings.Fields(args)...); err != nil {
			return err
		}
	}
	files := map[string]string{
		"cni/10-pods.conflist": fmt.Sprintf(bridge, filepath.Join(dir, "cni-data")),
		"containerd.toml":      fmt.Sprintf(containerdConfig, dir, busyboxImage, bin),
		"kubelet.yaml":         fmt.Sprintf(kubeletConfig, serviceIP, cgroup, dir),
		"resolv.conf":          "nameserver " + serviceIP + "\n",
	}
	for name, value := range tunables {
		files["tunables/"+name] = value + "\n"
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	for _, folder := range scratch {
		if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("--node needs a mount namespace: %s: %w", folder, err)
		}
	}
	for name := range tunables {
		if err := syscall.Mount(filepath.Join(dir, "tunables", name), "/proc/sys/"+name, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("--node needs a mount namespace: /proc/sys/%s: %w", name, err)
		}
	}
	image, err := buildBusyboxImage()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "busybox.tar"), image, 0o600)
}

// importImages succeeds when containerd has them all.
func importImages(dir, bin string, images []string) error {
	for _, image := range append(images, filepath.Join(dir, "busybox.tar")) {
		err := command(filepath.Join(bin, "ctr"), "--address", filepath.Join(dir, "containerd.sock"),
			"--namespace", "k8s.io", "images", "import", image)
		if err != nil {
			return err
		}
	}
	return nil
}

// nodeUsable says whether pods can be scheduled: the lifecycle controller has lifted the taint that a new node gets.
func (c *client) nodeUsable() error {
	body, err := c.call("GET", "/api/v1/nodes/"+nodeName, "")
	if err != nil {
		return err
	}
	var node struct {
		Spec struct{ Taints []struct{ Key string } }
	}
	if err := json.Unmarshal(body, &node); err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("tainted: %v", node.Spec.Taints)
	}
	return c.nodeReady(nodeName)
}

// command runs a program that ends by itself.
func command(name string, args ...string) error {
	if output, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, bytes.TrimSpace(output))
	}
	return nil
}
