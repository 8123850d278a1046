// Command peer does what the operator does, by controller-runtime: it is what benchmarks compare the operator with.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	what := ""
	if len(args) > 0 {
		what, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet(what, flag.ExitOnError)
	switch what {
	case "webhook":
		addr := flags.String("addr", "127.0.0.1:9443", "where to listen")
		dir := flags.String("cert-dir", "", "folder of tls.crt and tls.key")
		_ = flags.Parse(args)
		return serve(*addr, *dir)
	case "controller":
		kubeconfig := flags.String("kubeconfig", "", "how to reach the API server")
		concurrency := flags.Int("concurrency", 32, "reconciles at the same time")
		_ = flags.Parse(args)
		config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
		if err != nil {
			return err
		}
		return runController(ctrl.SetupSignalHandler(), config, *concurrency)
	}
	return fmt.Errorf("usage: peer webhook --addr HOST:PORT --cert-dir DIR | peer controller --kubeconfig FILE [--concurrency 32]")
}

func serve(addr, dir string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200) // a tenth more reviews, and little memory
	}
	server := webhook.NewServer(webhook.Options{
		Host: host, Port: number, CertDir: dir,
		// as kubebuilder's scaffold has it
		TLSOpts: []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }},
	})
	server.Register("/mutate", &webhook.Admission{Handler: mutateHandler})
	server.Register("/validate", &webhook.Admission{Handler: validateHandler})
	return server.Start(ctrl.SetupSignalHandler())
}
