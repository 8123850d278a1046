package main

import (
	"context"
	stdjson "encoding/json"
	"encoding/json/v2"
	"fmt"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const (
	manifest = `{"metadata":{"name":"task-7"},"spec":{"taskId":7,"serviceName":"auth","agentName":"coder","markdownFiles":[{"filename":"task.md","content":"# Do it"},{"filename":"more.md","content":"And that."}],"env":[{"name":"BRANCH","value":"main"}]}}`
	stored   = `{"metadata":{"name":"task-7","labels":{"task-id":"7","service-name":"auth"},"annotations":{"orchestrator.io/context-changed-by":"ben"},"finalizers":["orchestrator.io/run-cleanup"],"managedFields":[{"manager":"bot","operation":"Update","fieldsV1":{"f:spec":{"f:markdownFiles":{"k:{\"filename\":\"more.md\"}":{}}}}}]},"spec":{"taskId":7,"serviceName":"auth","agentName":"coder","contextVersion":3,"markdownFiles":[{"filename":"task.md","content":"# Do it"},{"filename":"more.md","content":"And that."}],"env":[{"name":"BRANCH","value":"main"}]}}`
)

// with replaces one text in an object's JSON, which must be there once.
func edited(object, from, to string) string {
	if strings.Count(object, from) != 1 {
		panic(from + " is not in it once")
	}
	return strings.Replace(object, from, to, 1)
}

func ask(h admission.Handler, object, old string) admission.Response {
	request := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Create,
		Resource:  metav1.GroupVersionResource{Group: group, Version: "v1", Resource: "taskruns"},
		Object:    runtime.RawExtension{Raw: []byte(object)},
		Options:   runtime.RawExtension{Raw: []byte(`{"fieldManager":"kubectl-edit"}`)},
	}}
	request.UserInfo.Username = "ana"
	if old != "" {
		request.Operation, request.OldObject = admissionv1.Update, runtime.RawExtension{Raw: []byte(old)}
	}
	return h.Handle(context.Background(), request)
}

func TestMutate(t *testing.T) {
	const ofRequest = `"content":"And that.","requestId":"r1"}`
	added := edited(stored, `"content":"And that."}`, ofRequest)
	const more = `,{"filename":"more.md","content":"And that."}`
	const addedMore = `,{"filename":"more.md",` + ofRequest
	for _, c := range []struct{ name, object, old, patch, warning string }{
		{"a new object", manifest, "", `[{"op":"add","path":"/spec/contextVersion","value":1},{"op":"add","path":"/metadata/finalizers","value":["orchestrator.io/run-cleanup"]},{"op":"add","path":"/metadata/labels","value":{"service-name":"auth","task-id":"7"}},{"op":"add","path":"/metadata/annotations","value":{"orchestrator.io/context-changed-by":"ana"}}]`, ""},
		{"a restored copy", stored, "", `[{"op":"add","path":"/spec/suspend","value":true},{"op":"add","path":"/metadata/annotations/orchestrator.io~1context-changed-by","value":"ana"}]`, "this looks like a restored"},
		{"nothing changed", stored, stored, "", ""},
		{"content changed", edited(stored, "# Do it", "# Do that"), stored, `[{"op":"add","path":"/spec/contextVersion","value":4},{"op":"add","path":"/metadata/annotations/orchestrator.io~1context-changed-by","value":"ana"}]`, ""},
		{"run again", edited(stored, `"contextVersion":3`, `"contextVersion":4`), stored, `[{"op":"add","path":"/metadata/annotations/orchestrator.io~1context-changed-by","value":"ana"}]`, ""},
		{"a version made up", edited(stored, `"contextVersion":3`, `"contextVersion":9`), stored, `[{"op":"add","path":"/spec/contextVersion","value":3}]`, "spec.contextVersion is managed, it is 3 now"},
		{"another order", edited(stored, `{"filename":"task.md","content":"# Do it"}`+more, more[1:]+`,{"filename":"task.md","content":"# Do it"}`), stored, "", ""},
		{"a file of another manager removed", edited(stored, more, ""), stored, `[{"op":"add","path":"/spec/contextVersion","value":4},{"op":"add","path":"/metadata/annotations/orchestrator.io~1context-changed-by","value":"ana"}]`, "this change removes files that others added: more.md (added by bot)"},
		{"a file of a request left out", edited(added, addedMore, ""), added, `[{"op":"add","path":"/spec/markdownFiles/-","value":{"content":"And that.","filename":"more.md","requestId":"r1"}}]`, "files that others added were kept"},
		{"a file of a request replaced", edited(added, ofRequest, `"content":"Other."}`), added, `[{"op":"add","path":"/spec/markdownFiles/-","value":{"content":"And that.","filename":"more-2.md","requestId":"r1"}},{"op":"add","path":"/spec/contextVersion","value":4},{"op":"add","path":"/metadata/annotations/orchestrator.io~1context-changed-by","value":"ana"}]`, "files that others added were kept"},
		{"a request's id left out", edited(added, `,"requestId":"r1"`, ""), added, `[{"op":"add","path":"/spec/markdownFiles/1/requestId","value":"r1"}]`, ""},
		{"a file of a request removed by name", edited(edited(added, addedMore, ""), `"annotations":{`, `"annotations":{"orchestrator.io/remove-files":"more.md",`), added, `[{"op":"add","path":"/spec/contextVersion","value":4},{"op":"add","path":"/metadata/annotations/orchestrator.io~1context-changed-by","value":"ana"}]`, "this change removes files"},
		{"malformed", edited(manifest, `"taskId":7`, `"taskId":"7"`), "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			response := ask(mutateHandler, c.object, c.old)
			patch := ""
			if len(response.Patches) > 0 {
				bytes, _ := stdjson.Marshal(response.Patches)
				patch = string(bytes)
			}
			if !response.Allowed || patch != c.patch {
				t.Errorf("patch is %s", patch)
			}
			if got := strings.Join(response.Warnings, "\n"); !strings.HasPrefix(got, c.warning) || (c.warning == "") != (got == "") {
				t.Errorf("warnings are %q", got)
			}
			if patch == "" {
				return
			}
			operations, err := jsonpatch.DecodePatch([]byte(patch))
			if err != nil {
				t.Fatal(err)
			}
			applied, err := operations.Apply([]byte(c.object))
			if err != nil {
				t.Fatal(err)
			}
			if again := ask(mutateHandler, string(applied), c.old); c.old != "" && len(again.Patches) > 0 {
				t.Errorf("asked again it patches %v", again.Patches)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	created := edited(stored, `"contextVersion":3`, `"contextVersion":1`)
	large := fmt.Sprintf(`"content":"# Do it%s"`, strings.Repeat("x", maxContentBytes))
	for _, c := range []struct{ name, object, old, message string }{
		{"a good one", created, "", ""},
		{"another name", edited(created, `"name":"task-7"`, `"name":"x"`), "", `metadata.name: must be "task-7": one TaskRun a task`},
		{"a bad service", edited(created, `"serviceName":"auth"`, `"serviceName":"Auth"`), "", "spec.serviceName: must be lower-case letters"},
		{"a bad agent", edited(created, `"agentName":"coder"`, `"agentName":"a..b"`), "", "spec.agentName: must be the name of an Agent"},
		{"a bad filename", edited(created, `"filename":"task.md"`, `"filename":".a\n.md"`), "", `spec.markdownFiles[0].filename: ".a\n.md" must end in .md`},
		{"a reserved filename", edited(created, `"filename":"task.md"`, `"filename":"claude.md"`), "", `spec.markdownFiles[0].filename: "claude.md" is reserved`},
		{"a filename twice", edited(created, `"filename":"task.md"`, `"filename":"more.md"`), "", `spec.markdownFiles[1].filename: "more.md" stands twice`},
		{"an empty file", edited(created, "And that.", "<!-- -->"), "", `spec.markdownFiles[1].content: "more.md" is empty`},
		{"too large", edited(created, `"content":"# Do it"`, large), "", "spec.markdownFiles: contents have 921616 bytes, 16 more"},
		{"a reserved variable", edited(created, "BRANCH", "TASK_ID"), "", `spec.env[0].name: "TASK_ID" is set by the operator`},
		{"an old empty file stays", edited(stored, `"And that."`, `" "`), edited(stored, `"And that."`, `" "`), ""},
		{"an immutable field", edited(stored, `"taskId":7`, `"taskId":8`), stored, "spec.taskId: is immutable"},
		{"content without a version", edited(stored, "And that.", "This."), stored, "spec.contextVersion: must be 4 since the context changed"},
		{"a version made up", edited(stored, `"contextVersion":3`, `"contextVersion":2`), stored, "spec.contextVersion: must be 3, or 4 to run"},
	} {
		t.Run(c.name, func(t *testing.T) {
			response := ask(validateHandler, c.object, c.old)
			message := ""
			if response.Result != nil {
				message = response.Result.Message
			}
			if !strings.HasPrefix(message, c.message) || (message == "") != (c.message == "") || response.Allowed != (message == "") {
				t.Errorf("allowed is %v: %s", response.Allowed, message)
			}
		})
	}
}

func TestBlankMarkdown(t *testing.T) {
	for _, blank := range []string{
		"", "   ", "\t\n \r\n", "\u00a0", "&nbsp; &#8203;", "\u200b\u200d\ufeff", "<!-- todo -->", "<!--\nmany\n\nlines\n-->",
		"<!-- a --> <!-- b -->\n\n<!---->\n", "<!-- not reached", "---\ntitle: x\n---\n", "---\ntitle: x\n...\n  \n",
		"\ufeff+++\ntitle = 1\n+++", "[a]: https://example.com", "#", "---", "```\n```", "\u2800", "-\n-\n", ">",
		strings.Repeat("<!-- a -->\n\n", 500), "---\ntitle: x\n\n" + strings.Repeat("a: b\n\n", 500) + "---\n",
	} {
		if !isBlank(blank) {
			t.Errorf("%q shows something", blank)
		}
	}
	for _, content := range []string{
		"x", "# Heading", "```\ncode\n```", "    code", "`x`", "![](picture.png)", "<!-- a --> b", "<b>", "---\ntitle: x\n",
		"---\ntitle: x\n---\nbody", "[a]: https://example.com\n\n[a]", "- [ ]", "🙂", "\\", "&lt;", "<https://a.example>",
		strings.Repeat("<!-- a -->\n\n", 500) + "x", strings.Repeat("line\n\n", 500),
	} {
		if isBlank(content) {
			t.Errorf("%q shows nothing", content)
		}
	}
}

func BenchmarkReview(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		content, _ := json.Marshal(strings.Repeat("A line of <markdown> & \"text\" like any other.\n\n", size/48))
		old := edited(stored, `"# Do it"`, string(content))
		object := edited(old, `"And that."`, `"This."`)
		for name, h := range map[string]admission.Handler{"mutate": mutateHandler, "validate": validateHandler} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					ask(h, object, old)
				}
			})
		}
	}
}
