package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// fakeNode is the annotation of the nodes that kwok plays, as key=value.
const fakeNode = "kwok.x-k8s.io/node=fake"

// client calls the API server as one user.
type client struct {
	server string
	tls    *tls.Config
	http   *http.Client
}

func newClient(server string, authority *authority, user keyPair) (*client, error) {
	certificate, err := tls.X509KeyPair(user.certificate, user.key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.certificatePEM)
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}
	return &client{server, config, &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: config},
	}}, nil
}

func (c *client) ready() error {
	_, err := c.call("GET", "/readyz", "")
	return err
}

func (c *client) serviceAccountExists() error {
	_, err := c.call("GET", "/api/v1/namespaces/default/serviceaccounts/default", "")
	return err
}

// createNode creates a node, whose kubelet has this port, and waits until kwok has made it ready.
func (c *client) createNode(ctx context.Context, name string, kubeletPort int) error {
	const resources = `{"cpu": "512", "memory": "4Ti", "pods": "100000"}`
	// In a folder that was used before it is there, with the port of then.
	if _, err := c.call("DELETE", "/api/v1/nodes/"+name, ""); err != nil && !strings.Contains(err.Error(), "404 Not Found") {
		return err
	}
	_, err := c.call("POST", "/api/v1/nodes", fmt.Sprintf(`{"apiVersion": "v1", "kind": "Node",
		"metadata": {"name": %q, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {"kubernetes.io/hostname": %[1]q}},
		"status": {"allocatable": %[2]s, "capacity": %[2]s, "daemonEndpoints": {"kubeletEndpoint": {"Port": %[3]d}}}}`,
		name, resources, kubeletPort))
	if err != nil {
		return err
	}
	// The API server taints every new node, and the node lifecycle controller, which would lift that, is not run.
	if _, err := c.call("PATCH", "/api/v1/nodes/"+name, `{"spec": {"taints": null}}`); err != nil {
		return err
	}
	return poll(ctx, "node "+name, func() error { return c.nodeReady(name) })
}

func (c *client) nodeReady(name string) error {
	body, err := c.call("GET", "/api/v1/nodes/"+name, "")
	if err != nil {
		return err
	}
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status string }
		}
	}
	if err := json.Unmarshal(body, &node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" && condition.Status == "True" {
			return nil
		}
	}
	return fmt.Errorf("not Ready")
}

func (c *client) call(method, path, body string) ([]byte, error) {
	request, err := http.NewRequest(method, c.server+path, bytes.NewBufferString(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if method == "PATCH" {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return answer, err
}
