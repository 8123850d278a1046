package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// followInterval is how often a followed log, and the pod that writes it, is looked at.
const followInterval = 200 * time.Millisecond

// kubelet serves the pods' logs, for all nodes. kwok's own server does not find a file by its pod's name, and goes on
// following when the pod has ended.
type kubelet struct {
	stopping <-chan struct{} // closed when the API server is about to stop, which waits for its answers
	api      *client
	logs     string // folder of <namespace>/<pod>.log
}

// startKubelet returns the port of 127.0.0.1 on which the API server, by its certificate, can ask for logs.
func startKubelet(stopping <-chan struct{}, api *client, logs string) (port int, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", (&kubelet{stopping, api, logs}).containerLogs)
	server := &http.Server{Handler: mux, TLSConfig: &tls.Config{
		Certificates: api.tls.Certificates, ClientCAs: api.tls.RootCAs, ClientAuth: tls.RequireAndVerifyClientCert,
	}}
	go server.ServeTLS(listener, "", "")
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// containerLogs answers with the log of a pod and, if asked to follow, with what is appended to it until the container
// has ended or the pod is gone. Of the other options it knows tailLines.
func (k *kubelet) containerLogs(w http.ResponseWriter, r *http.Request) {
	namespace, name, container := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	query := r.URL.Query()
	refuse := func(code int, format string, args ...any) { http.Error(w, fmt.Sprintf(format, args...), code) }
	pod, err := k.pod(namespace, name)
	if err != nil {
		refuse(http.StatusInternalServerError, "%v", err)
		return
	}
	if pod == nil {
		refuse(http.StatusNotFound, "pod %q does not exist", name)
		return
	}
	waiting, ended := pod.state(container)
	if waiting != "" && !ended {
		refuse(http.StatusBadRequest, "container %q in pod %q is waiting to start: %s", container, name, waiting)
		return
	}
	if query.Get("previous") == "true" {
		refuse(http.StatusBadRequest, "previous terminated container %q in pod %q not found", container, name)
		return
	}

	path := filepath.Join(k.logs, namespace, name+".log")
	log, _ := os.ReadFile(path) // none: an empty log
	sent := 0
	if count, err := strconv.Atoi(query.Get("tailLines")); err == nil {
		lines := slices.Collect(bytes.Lines(log))
		sent = len(bytes.Join(lines[:max(0, len(lines)-count)], nil))
	}
	for {
		w.Write(log[min(sent, len(log)):])
		http.NewResponseController(w).Flush()
		sent = len(log)
		if ended || query.Get("follow") != "true" {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-k.stopping:
			return
		case <-time.After(followInterval):
		}
		// The pod first: what a container wrote until its end is in the log by then.
		if now, err := k.pod(namespace, name); err == nil {
			if ended = now == nil || now.Metadata.UID != pod.Metadata.UID; !ended {
				_, ended = now.state(container)
			}
		}
		log, _ = os.ReadFile(path)
	}
}

type pod struct {
	Metadata struct{ UID string }
	Status   struct {
		Phase                                    string
		ContainerStatuses, InitContainerStatuses []struct {
			Name  string
			State struct {
				Waiting    *struct{ Reason string }
				Terminated *struct{}
			}
		}
	}
}

// pod returns a pod, or nil if there is none.
func (k *kubelet) pod(namespace, name string) (*pod, error) {
	body, err := k.api.call("GET", "/api/v1/namespaces/"+namespace+"/pods?fieldSelector=metadata.name="+name, "")
	if err != nil {
		return nil, err
	}
	var pods struct{ Items []*pod }
	if err := json.Unmarshal(body, &pods); err != nil || len(pods.Items) == 0 {
		return nil, err
	}
	return pods.Items[0], nil
}

// state says why a container has not started, if it has not, and whether it has ended.
func (p *pod) state(container string) (waiting string, ended bool) {
	waiting = "ContainerCreating"
	for _, status := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if status.Name == container {
			waiting, ended = "", status.State.Terminated != nil
			if status.State.Waiting != nil {
				waiting = status.State.Waiting.Reason
			}
		}
	}
	return waiting, ended || p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed"
}
