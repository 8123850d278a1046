package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strings"
)

// busyboxImage has a shell and the usual commands. It is for containers of tests, and holds the namespaces of each pod.
const busyboxImage = "localhost/busybox:1"

// buildBusyboxImage returns the image as an archive, made of the busybox of this machine, which must be static.
func buildBusyboxImage() ([]byte, error) {
	file, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("install Debian's busybox-static: %w", err)
	}
	executable, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	list, err := exec.Command(file, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", file, err)
	}
	entries := []tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(executable))},
	}
	for _, applet := range strings.Fields(string(list)) {
		if name := path.Base(applet); name != "busybox" {
			entries = append(entries, tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
		}
	}
	layer, err := archive(entries, map[string][]byte{"bin/busybox": executable})
	if err != nil {
		return nil, err
	}
	return imageArchive(layer)
}

// imageArchive makes an image of one layer, in the form of `docker save`.
func imageArchive(layer []byte) ([]byte, error) {
	type object = map[string]any
	config, err := json.Marshal(object{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Cmd": []string{"sleep", "infinity"}, "Env": []string{"PATH=/bin"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]object{{"Config": "config.json", "RepoTags": []string{busyboxImage}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"config.json": config, "layer.tar": layer, "manifest.json": manifest}
	var entries []tar.Header
	for name, content := range files {
		entries = append(entries, tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))})
	}
	return archive(entries, files)
}

func archive(entries []tar.Header, contents map[string][]byte) ([]byte, error) {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, entry := range entries {
		if err := writer.WriteHeader(&entry); err != nil {
			return nil, err
		}
		if _, err := writer.Write(contents[entry.Name]); err != nil {
			return nil, err
		}
	}
	return buffer.Bytes(), writer.Close()
}
