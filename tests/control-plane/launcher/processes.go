package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	stopTimeout  = 5 * time.Second
	pollInterval = 50 * time.Millisecond
	tailLines    = 15
)

// processes are the running components, in the order in which they were started.
type processes struct {
	dir      string // where each writes <name>.log
	died     context.CancelCauseFunc
	stopping <-chan struct{} // closed before the first is stopped
	running  []*process
}

type process struct {
	name  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// start runs bin/name with args. It must be called from the main thread: see init.
func (p *processes) start(bin, name string, args ...string) error {
	path := filepath.Join(p.dir, name+".log")
	log, err := os.Create(path)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	cmd.Env = append(os.Environ(), "HOME="+p.dir) // no settings of the user's
	// A group of its own, so that Ctrl-C on a terminal reaches the launcher only.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	process := &process{name: name, cmd: cmd, log: path, ended: make(chan struct{})}
	p.running = append(p.running, process)
	go func() {
		err := cmd.Wait()
		if err == nil {
			err = fmt.Errorf("exit status 0")
		}
		p.died(fmt.Errorf("%s ended: %w\n%s", name, err, process.tail())) // ignored when the end was wanted
		close(process.ended)
	}()
	return nil
}

// stop ends the components, those that depend on others first, and kills what is left after stopTimeout.
func (p *processes) stop() {
	p.died(errStopped)
	timeout := time.After(stopTimeout)
	for i := len(p.running) - 1; i >= 0; i-- {
		process := p.running[i]
		process.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-process.ended:
			continue
		case <-timeout:
		}
		for _, process := range p.running[:i+1] {
			process.cmd.Process.Kill()
			<-process.ended
		}
		return
	}
}

// lastLines returns the ends of all logs.
func (p *processes) lastLines() string {
	var all strings.Builder
	for _, process := range p.running {
		fmt.Fprintf(&all, "--- %s\n%s\n", process.name, process.tail())
	}
	return all.String()
}

func (p *process) tail() string {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-tailLines):], []byte("\n")))
}

// poll calls check until it returns no error or ctx ends.
func poll(ctx context.Context, what string, check func() error) error {
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last seen waiting for %s: %v", context.Cause(ctx), what, err)
		case <-time.After(pollInterval):
		}
	}
}
