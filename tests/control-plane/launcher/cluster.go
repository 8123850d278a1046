package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// The components have users of their own, so that the audit log tells their requests from a test's.
const (
	adminUser             = "admin"
	controllerManagerUser = "system:kube-controller-manager"
	schedulerUser         = "system:kube-scheduler"
	kwokUser              = "system:kwok"
	kubeletUser           = "system:kubelet"
	apiserverUser         = "kube-apiserver-kubelet-client" // towards the kubelet
)

// auditPolicy records every request once, when it is answered, except for what components send all the time.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted, Panic]
rules:
- level: None
  users: [system:apiserver, ` + kubeletUser + `]
- level: None
  users: [` + controllerManagerUser + ", " + schedulerUser + ", " + kwokUser + `]
  resources: [{group: "", resources: [events]}, {group: events.k8s.io, resources: [events]}]
- level: Metadata
`

const schedulerConfig = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {kubeconfig: kube-scheduler.kubeconfig, qps: 1000, burst: 2000}
leaderElection: {leaderElect: false}
enableProfiling: false
`

// The components run in the folder of their files, so files are given by name.
var (
	etcdArgs = []string{
		"--name=etcd", "--data-dir=etcd", "--unsafe-no-fsync", "--quota-backend-bytes=8589934592",
		"--initial-cluster=etcd=http://localhost:2380", // never dialled, as there is one member
	}
	apiserverArgs = []string{
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--tls-cert-file=apiserver.crt", "--tls-private-key-file=apiserver.key", "--client-ca-file=ca.crt",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=service-account.key",
		"--service-account-signing-key-file=service-account.key", "--service-cluster-ip-range=10.0.0.0/24",
		"--authorization-mode=RBAC", "--allow-privileged", "--profiling=false",
		"--kubelet-preferred-address-types=InternalIP", "--kubelet-certificate-authority=ca.crt",
		"--kubelet-client-certificate=kubelet-client.crt", "--kubelet-client-key=kubelet-client.key",
		"--audit-policy-file=audit-policy.yaml", "--audit-log-path=audit.log", "--audit-log-maxsize=0",
	}
	controllerManagerArgs = []string{
		"--kubeconfig=kube-controller-manager.kubeconfig", "--leader-elect=false", "--secure-port=0", "--profiling=false",
		"--kube-api-qps=1000", "--kube-api-burst=2000", "--concurrent-job-syncs=20",
		"--root-ca-file=ca.crt", "--service-account-private-key-file=service-account.key",
		"--controllers=job-controller,garbage-collector-controller,namespace-controller,ttl-after-finished-controller," +
			"serviceaccount-controller,serviceaccount-token-controller,root-ca-certificate-publisher-controller," +
			"pod-garbage-collector-controller,clusterrole-aggregation-controller,resourcequota-controller,disruption-controller",
	}
	schedulerArgs = []string{"--config=kube-scheduler.yaml", "--secure-port=0"}
	kwokArgs      = []string{
		"--kubeconfig=kwok.kubeconfig", "--config=stages.yaml", "--manage-nodes-with-annotation-selector=" + fakeNode,
		"--cidr=10.128.0.0/12", "--node-lease-duration-seconds=0", // nobody here looks whether a node is alive
	}
)

// component is a program that runs as long as the control plane.
type component struct {
	name  string
	args  []string
	ready func() error // nil: nothing waits for it
}

// startCluster starts the components, each when what it needs answers, and returns the path of the admin kubeconfig.
func startCluster(ctx context.Context, processes *processes, options options) (kubeconfig string, err error) {
	dir := processes.dir
	socket := filepath.Join(dir, "etcd.sock")
	if len(socket) > 100 {
		return "", fmt.Errorf("the path of %s is too long for a socket", dir)
	}
	host, port := "127.0.0.1", 443
	if options.node != "" {
		host, err = serviceIP, prepareNode(dir, options.bin, options.node)
		apiserverArgs = append(apiserverArgs, nodeAPIServerArgs...)
		controllerManagerArgs = append(controllerManagerArgs, nodeControllerManagerArgs...)
	} else {
		port, err = reservePort()
	}
	if err != nil {
		return "", err
	}
	api, kubeletAPI, err := writeFiles(dir, fmt.Sprintf("https://%s:%d", host, port), options.stages)
	if err != nil {
		return "", err
	}
	kubeletPort, err := startKubelet(processes.stopping, kubeletAPI, filepath.Join(dir, "logs"))
	if err != nil {
		return "", err
	}

	components := []component{
		// etcd asks for no password, so it listens on sockets in a folder that is the user's own.
		{"etcd", append(etcdArgs, "--listen-client-urls=unix://"+socket, "--advertise-client-urls=http://localhost:2379",
			"--listen-peer-urls=unix://"+filepath.Join(dir, "peer.sock")), func() error { return dial(socket) }},
		{"kube-apiserver", append(append(apiserverArgs, "--etcd-servers=unix://"+socket, "--permit-port-sharing",
			fmt.Sprintf("--secure-port=%d", port)), options.apiserverArgs...), api.ready},
		{"kube-controller-manager", controllerManagerArgs, nil},
		{"kube-scheduler", schedulerArgs, nil},
	}
	if options.node != "" {
		imported := func() error { return importImages(dir, options.bin, options.images) }
		components = append(components, component{"containerd", containerdArgs, imported},
			component{"kubelet", append(kubeletArgs, "--root-dir="+filepath.Join(dir, "kubelet")), api.nodeUsable})
	} else {
		components = append(components, component{"kwok", kwokArgs, nil})
	}
	for _, component := range components {
		if err := processes.start(options.bin, component.name, component.args...); err != nil {
			return "", err
		}
		if component.ready == nil {
			continue
		}
		if err := poll(ctx, component.name, component.ready); err != nil {
			return "", err
		}
	}
	for i := range options.nodes {
		if err := api.createNode(ctx, fmt.Sprintf("kwok-%d", i), kubeletPort); err != nil {
			return "", err
		}
	}
	err = poll(ctx, "the service account default/default", api.serviceAccountExists)
	return filepath.Join(dir, "kubeconfig"), err
}

// writeFiles writes what the components read, and returns clients for the admin and the kubelet.
func writeFiles(dir, server, stagesFile string) (admin, kubelet *client, err error) {
	authority, err := newAuthority()
	if err != nil {
		return nil, nil, err
	}
	serving, err := authority.issue("kube-apiserver", x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, nil, err
	}
	kubeletClient, err := authority.issue(apiserverUser, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, nil, err
	}
	kubeletPair, err := authority.issue(kubeletUser, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, nil, err
	}
	_, serviceAccountKey, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	stages := defaultStages
	if stagesFile != "" {
		if stages, err = os.ReadFile(stagesFile); err != nil {
			return nil, nil, err
		}
	}
	files := map[string][]byte{
		"ca.crt":              authority.certificatePEM,
		"apiserver.crt":       serving.certificate,
		"apiserver.key":       serving.key,
		"kubelet-client.crt":  kubeletClient.certificate,
		"kubelet-client.key":  kubeletClient.key,
		"kubelet.crt":         kubeletPair.certificate,
		"kubelet.key":         kubeletPair.key,
		"kubelet.kubeconfig":  authority.kubeconfig(server, kubeletUser, kubeletPair),
		"service-account.key": serviceAccountKey,
		"audit-policy.yaml":   []byte(auditPolicy),
		"kube-scheduler.yaml": []byte(schedulerConfig),
		"stages.yaml":         stages,
	}
	users := map[string]string{
		"kubeconfig":                         adminUser,
		"kube-controller-manager.kubeconfig": controllerManagerUser,
		"kube-scheduler.kubeconfig":          schedulerUser,
		"kwok.kubeconfig":                    kwokUser,
	}
	var adminPair keyPair
	for file, user := range users {
		pair, err := authority.issue(user, x509.ExtKeyUsageClientAuth)
		if err != nil {
			return nil, nil, err
		}
		files[file] = authority.kubeconfig(server, user, pair)
		if user == adminUser {
			adminPair = pair
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, nil, err
		}
	}
	if admin, err = newClient(server, authority, adminPair); err != nil {
		return nil, nil, err
	}
	kubelet, err = newClient(server, authority, kubeletPair)
	return admin, kubelet, err
}

// reservePort binds a port of 127.0.0.1 without listening and keeps it until the launcher ends: nobody else is
// given it meanwhile, but the API server, which asks for a shared port, can listen on it.
func reservePort() (int, error) {
	const soReusePort = 0xf // package syscall lacks it
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, soReusePort, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	address, err := syscall.Getsockname(socket)
	if err != nil {
		return 0, err
	}
	return address.(*syscall.SockaddrInet4).Port, nil
}

func dial(socket string) error {
	connection, err := net.Dial("unix", socket)
	if err == nil {
		connection.Close()
	}
	return err
}
