// Command control-plane runs a Kubernetes control plane with fake nodes on 127.0.0.1, or with a real one in a network
// namespace, until it is told to stop.
//
// It prints one line on stdout, the path of an admin kubeconfig, when pods can be scheduled, and stays in the
// foreground. It stops on SIGINT, on SIGTERM, and when its stdin is a pipe whose other end closes; its processes
// end with it even when it is killed.
//
// The log of a pod, whichever its container, is the file DIR/logs/NAMESPACE/POD.log, which a test writes; without one
// it is empty. `kubectl logs -f` shows what is appended, and ends when the container has ended or the pod is gone.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const startTimeout = 60 * time.Second

// errStopped is why the control plane ends when somebody asked for it.
var errStopped = errors.New("asked to stop")

//go:embed stages.yaml
var defaultStages []byte

type options struct {
	dir           string // empty: a temporary folder, removed at the end
	bin           string // folder of the components' executables
	stages        string // kwok Stages; empty: the embedded ones
	nodes         int
	node          string   // cgroup of a real node instead
	images        []string // archives for it
	apiserverArgs []string
}

// The kernel ends a child when the thread that started it ends, so every child is started from the main thread.
func init() { runtime.LockOSThread() }

func main() {
	options, err := parseOptions()
	if err == nil {
		err = run(options)
	}
	if err != nil && !errors.Is(err, errStopped) {
		fmt.Fprintln(os.Stderr, "control-plane:", err)
		os.Exit(1)
	}
}

func parseOptions() (options, error) {
	var o options
	executable, err := os.Executable()
	if err != nil {
		return o, err
	}
	flag.StringVar(&o.dir, "dir", "", "`folder` for keys, data and logs, kept at the end, from which it can be started again (default a temporary one, removed at the end);\n"+
		"kubectl logs shows logs/NAMESPACE/POD.log in it, which a test writes")
	flag.StringVar(&o.bin, "bin", filepath.Dir(executable), "`folder` of etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok")
	flag.StringVar(&o.stages, "stages", "", "kwok Stages that play the kubelet (default the `file` built in)")
	flag.IntVar(&o.nodes, "nodes", 1, "`number` of fake nodes")
	flag.StringVar(&o.node, "node", "", "instead of fake nodes a real one, node-0, whose pods are in this `cgroup`, which exists: needs root and new network,\n"+
		"mount and PID namespaces, kubelet, containerd, containerd-shim-runc-v2 and ctr in -bin, and runc and busybox on PATH")
	flag.Func("image", "archive (`file`) of an image that the real node has; repeatable", func(file string) error {
		o.images = append(o.images, file)
		return nil
	})
	flag.Func("apiserver-arg", "further kube-apiserver `argument`, such as --feature-gates=X=true; repeatable", func(arg string) error {
		o.apiserverArgs = append(o.apiserverArgs, arg)
		return nil
	})
	flag.Parse()
	if o.node != "" {
		o.nodes = 0
	}
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	return o, nil
}

// run starts the control plane, says where its kubeconfig is, and returns why it ended.
func run(options options) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancelWhenAsked(cancel)

	dir, removeDir, err := prepareDir(options.dir)
	if err != nil {
		return err
	}
	defer removeDir()
	processes := &processes{dir: dir, died: cancel, stopping: ctx.Done()}
	defer processes.stop()

	starting, started := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not up within %s", startTimeout))
	defer started()
	kubeconfig, err := startCluster(starting, processes, options)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, processes.lastLines())
	}
	fmt.Println(kubeconfig)
	<-ctx.Done()
	return context.Cause(ctx)
}

func cancelWhenAsked(cancel context.CancelCauseFunc) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		cancel(errStopped)
	}()
	// A pipe is held by whoever started this; a terminal or /dev/null says nothing by its end.
	if stdin, err := os.Stdin.Stat(); err == nil && stdin.Mode()&os.ModeNamedPipe != 0 {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			cancel(errStopped)
		}()
	}
}

func prepareDir(wanted string) (dir string, remove func(), err error) {
	if wanted == "" {
		dir, err = os.MkdirTemp("", "control-plane-")
		return dir, func() { os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(wanted); err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	return dir, func() {}, err
}
