package main

import (
	"cmp"
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const (
	maxWarning = 256
	maxNamed   = 20
)

// A subject is what admission reads of a TaskRun. What only few changes need (managed fields, files as they are stored)
// is read from its JSON when it is needed.
type subject struct {
	Metadata *metadata      `json:"metadata"`
	Spec     *spec          `json:"spec"`
	Status   jsontext.Value `json:"status"`
	raw      []byte
}

type metadata struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Finalizers  []string          `json:"finalizers"`
}

type spec struct {
	TaskID         *int64   `json:"taskId"`
	ServiceName    string   `json:"serviceName"`
	AgentName      string   `json:"agentName"`
	ContextVersion *int64   `json:"contextVersion"`
	MarkdownFiles  []file   `json:"markdownFiles"`
	Env            []envVar `json:"env"`
	Suspend        *bool    `json:"suspend"`
	Cancel         *bool    `json:"cancel"`
}

type file struct {
	Filename  string  `json:"filename"`
	Content   string  `json:"content"`
	RequestID *string `json:"requestId"`
}

type envVar struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func decode(raw []byte) *subject {
	s := &subject{raw: raw}
	// the API server never sends a name twice
	if json.Unmarshal(raw, s, jsontext.AllowDuplicateNames(true)) != nil || s.Metadata == nil || s.Spec == nil {
		return nil
	}
	return s
}

// sameContent tells whether two specs have the same context, with more files beside those of the first. Order does
// not count.
func sameContent(a, b *spec, more []file) bool {
	files := a.MarkdownFiles
	if len(more) > 0 {
		files = slices.Concat(files, more)
	}
	sameFile := func(a, b file) bool { return a.Filename == b.Filename && a.Content == b.Content }
	byFile := func(a, b file) int {
		return cmp.Or(strings.Compare(a.Filename, b.Filename), strings.Compare(a.Content, b.Content))
	}
	byEnv := func(a, b envVar) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value))
	}
	return a.AgentName == b.AgentName &&
		sameSet(a.Env, b.Env, func(a, b envVar) bool { return a == b }, byEnv) &&
		sameSet(files, b.MarkdownFiles, sameFile, byFile)
}

func sameSet[T any](a, b []T, same func(a, b T) bool, compare func(a, b T) int) bool {
	if len(a) != len(b) || slices.EqualFunc(a, b, same) {
		return len(a) == len(b)
	}
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, compare)
	slices.SortFunc(b, compare)
	return slices.EqualFunc(a, b, same)
}

func equal[T comparable](a, b *T) bool { return a == b || (a != nil && b != nil && *a == *b) }

func successor(version int64) int64 {
	if version == math.MaxInt64 {
		return version
	}
	return version + 1
}

// A writer is who writes.
type writer struct {
	username string
	options  []byte
}

// manager is the field manager, where the request names one.
func (w writer) manager() *string {
	var options struct {
		FieldManager *string `json:"fieldManager"`
	}
	if len(w.options) == 0 || json.Unmarshal(w.options, &options) != nil {
		return nil
	}
	return options.FieldManager
}

// A mutation is what mutating admission does to an object. Applied to its own result it does nothing more.
type mutation struct {
	patch    []jsonpatch.Operation
	warnings []string
}

func (m *mutation) add(path string, value any) {
	m.patch = append(m.patch, jsonpatch.NewOperation("add", path, value))
}

func (m *mutation) warn(format string, args ...any) {
	m.warnings = append(m.warnings, oneLine(fmt.Sprintf(format, args...)))
}

func mutate(object, old *subject, by writer) mutation {
	var m mutation
	if old == nil {
		m.create(object, by)
	} else {
		m.update(object, old, by)
	}
	return m
}

func (m *mutation) create(object *subject, by writer) {
	written, version := object.Spec.ContextVersion, int64(1)
	if written == nil {
		m.add("/spec/contextVersion", 1)
	} else {
		version = *written
	}
	author, isKnown := object.Metadata.Annotations[changedBy]
	// only what was stored before has a later version, or says that it ran or that somebody else wrote it
	isCopy := version > 1 || hasRun(object) || (written != nil && isKnown && author != by.username)
	if isCopy && (object.Spec.Suspend == nil || !*object.Spec.Suspend) {
		m.add("/spec/suspend", true)
		m.warn("this looks like a restored or copied TaskRun (spec.contextVersion is %d), so it gets suspend: true; set suspend to false to run it", version)
	}
	if !slices.Contains(object.Metadata.Finalizers, finalizer) {
		m.add("/metadata/finalizers", append(slices.Clip(object.Metadata.Finalizers), finalizer))
	}
	m.addLabels(object)
	m.annotate(object, by.username, true)
}

func hasRun(object *subject) bool {
	var status struct {
		Runs []jsontext.Value `json:"runs"`
	}
	return len(object.Status) > 0 && json.Unmarshal(object.Status, &status) == nil && len(status.Runs) > 0
}

// addLabels sets the labels whose fields are legal: of the others the schema speaks.
func (m *mutation) addLabels(object *subject) {
	wanted := make(map[string]string, 2)
	if id := object.Spec.TaskID; id != nil {
		wanted["task-id"] = strconv.FormatInt(*id, 10)
	}
	if name := object.Spec.ServiceName; isLabel(name) && len(name) <= 63 {
		wanted["service-name"] = name
	}
	labels := maps.Clone(object.Metadata.Labels)
	if labels == nil {
		labels = make(map[string]string, len(wanted))
	}
	maps.Copy(labels, wanted)
	if !maps.Equal(labels, object.Metadata.Labels) {
		m.add("/metadata/labels", labels)
	}
}

func (m *mutation) update(object, old *subject, by writer) {
	var before int64
	if old.Spec.ContextVersion != nil {
		before = *old.Spec.ContextVersion
	}
	written := object.Spec.ContextVersion
	kept := keep(object, old, by)
	moves := (written != nil && *written == successor(before)) || !sameContent(object.Spec, old.Spec, kept.files)
	wanted := before
	if moves {
		wanted = successor(before)
	}
	if len(kept.files) > 0 {
		names := make([]string, len(kept.files))
		for i := range kept.files {
			names[i] = kept.files[i].Filename
		}
		m.warn("files that others added were kept; to remove one, name it in the annotation %s in the same edit: %s", removeFiles, strings.Join(names, ", "))
	}
	m.patch = append(m.patch, kept.patch...)
	if (written == nil || *written != wanted) && wanted > 0 {
		m.add("/spec/contextVersion", wanted)
		if written != nil && *written != before {
			m.warn("spec.contextVersion is managed, it is %d now: leave it out, or write %d to run the same context again", wanted, successor(wanted))
		}
	}
	if moves {
		m.annotate(object, by.username, true)
	} else {
		author, isKnown := old.Metadata.Annotations[changedBy]
		m.annotate(object, author, isKnown)
	}
	if gone := removedFilesOfOthers(object, old, kept.names, by); len(gone) > 0 {
		m.warn("this change removes files that others added: %s", strings.Join(gone, ", "))
	}
}

// annotate says who gave the object its version.
func (m *mutation) annotate(object *subject, author string, isKnown bool) {
	path := "/metadata/annotations/" + strings.ReplaceAll(changedBy, "/", "~1")
	present, isThere := object.Metadata.Annotations[changedBy]
	switch {
	case isThere == isKnown && present == author:
	case !isKnown:
		m.patch = append(m.patch, jsonpatch.NewOperation("remove", path, nil))
	case object.Metadata.Annotations == nil:
		m.add("/metadata/annotations", map[string]string{changedBy: author})
	default:
		m.add(path, author)
	}
}

// kept is what is put back into a write: files by their new names, and the old names of those.
type kept struct {
	files []file
	names []string
	patch []jsonpatch.Operation
}

// keep finds the files of requests that a write leaves out, replaces by others of their names, or takes the request's
// id from. A manager that applied a file may take it away.
func keep(object, old *subject, by writer) kept {
	var k kept
	files, before := object.Spec.MarkdownFiles, old.Spec.MarkdownFiles
	if !slices.ContainsFunc(before, func(f file) bool { return f.RequestID != nil }) {
		return k
	}
	known, taken := map[string]bool{}, map[string]bool{}
	var added []int
	for i, f := range before {
		if !known[f.Filename] && f.RequestID != nil {
			added = append(added, i)
		}
		known[f.Filename], taken[f.Filename] = true, true
	}
	at, renamed := map[string]int{}, map[string]bool{}
	for i, f := range files {
		at[f.Filename], taken[f.Filename] = i, true
		if !known[f.Filename] && f.RequestID != nil {
			renamed[*f.RequestID] = true
		}
	}
	named := map[string]bool{}
	if names, ok := object.Metadata.Annotations[removeFiles]; ok {
		// what an earlier write named does not count again
		if earlier, ok := old.Metadata.Annotations[removeFiles]; !ok || earlier != names {
			for name := range strings.SplitSeq(names, ",") {
				named[strings.TrimSpace(name)] = true
			}
		}
	}
	var own map[string]bool
	var stored []map[string]any
	for _, i := range added {
		f := before[i]
		place, isThere := at[f.Filename]
		if isThere && equal(files[place].RequestID, f.RequestID) || renamed[*f.RequestID] || named[f.Filename] {
			continue
		}
		if own == nil {
			own, stored = appliedBy(old, by), storedFiles(old)
		}
		if own[key(f.Filename)] {
			continue
		}
		if isThere && files[place].RequestID == nil && files[place].Content == f.Content {
			k.patch = append(k.patch, jsonpatch.NewOperation("add", fmt.Sprintf("/spec/markdownFiles/%d/requestId", place), *f.RequestID))
			continue
		}
		name := f.Filename
		if isThere {
			name = freeName(name, taken)
		}
		stored[i]["filename"] = name
		k.patch = append(k.patch, jsonpatch.NewOperation("add", "/spec/markdownFiles/-", stored[i]))
		k.names = append(k.names, f.Filename)
		k.files = append(k.files, file{Filename: name, Content: f.Content})
	}
	if files == nil && len(k.patch) > 0 {
		k.patch = slices.Insert(k.patch, 0, jsonpatch.NewOperation("add", "/spec/markdownFiles", []any{}))
	}
	return k
}

// storedFiles has all fields of the files, also those that are not known here.
func storedFiles(old *subject) []map[string]any {
	var stored struct {
		Spec struct {
			MarkdownFiles []map[string]any `json:"markdownFiles"`
		} `json:"spec"`
	}
	_ = json.Unmarshal(old.raw, &stored, jsontext.AllowDuplicateNames(true))
	return stored.Spec.MarkdownFiles
}

func freeName(name string, taken map[string]bool) string {
	stem := strings.TrimSuffix(name, ".md")
	for number := 2; ; number++ {
		if free := fmt.Sprintf("%s-%d.md", stem, number); !taken[free] {
			taken[free] = true
			return free
		}
	}
}

type managedFields struct {
	Manager   *string `json:"manager"`
	Operation string  `json:"operation"`
	FieldsV1  struct {
		Spec struct {
			Files map[string]jsontext.Value `json:"f:markdownFiles"`
		} `json:"f:spec"`
	} `json:"fieldsV1"`
}

func managers(old *subject) []managedFields {
	var stored struct {
		Metadata struct {
			ManagedFields []managedFields `json:"managedFields"`
		} `json:"metadata"`
	}
	_ = json.Unmarshal(old.raw, &stored, jsontext.AllowDuplicateNames(true))
	return stored.Metadata.ManagedFields
}

// key is what a file is called among a manager's fields.
func key(filename string) string {
	name, _ := json.Marshal(filename)
	return `k:{"filename":` + string(name) + `}`
}

// appliedBy has the keys of the files that the writer's manager has applied.
func appliedBy(old *subject, by writer) map[string]bool {
	own, manager := map[string]bool{}, by.manager()
	for _, entry := range managers(old) {
		if manager != nil && entry.Operation == "Apply" && equal(entry.Manager, manager) {
			for file := range entry.FieldsV1.Spec.Files {
				own[file] = true
			}
		}
	}
	return own
}

// removedFilesOfOthers names the files which a write removes though another manager put them there.
func removedFilesOfOthers(object, old *subject, kept []string, by writer) []string {
	files := object.Spec.MarkdownFiles
	stays := make(map[string]bool, len(files)+len(kept))
	for i := range files {
		stays[files[i].Filename] = true
	}
	for _, name := range kept {
		stays[name] = true
	}
	isGone := func(f file) bool { return !stays[f.Filename] }
	if !slices.ContainsFunc(old.Spec.MarkdownFiles, isGone) {
		return nil
	}
	others, manager := map[string]string{}, by.manager()
	for _, entry := range managers(old) {
		if entry.Manager == nil || equal(entry.Manager, manager) {
			continue
		}
		for file := range entry.FieldsV1.Spec.Files {
			if _, ok := others[file]; !ok {
				others[file] = *entry.Manager
			}
		}
	}
	var names []string
	for _, f := range old.Spec.MarkdownFiles {
		if other, ok := others[key(f.Filename)]; ok && isGone(f) && len(names) < maxNamed {
			names = append(names, fmt.Sprintf("%s (added by %s)", f.Filename, other))
		}
	}
	return names
}

// oneLine makes a warning as the API server takes it: it drops one that has control characters.
func oneLine(warning string) string {
	line := []rune(warning)
	for i, c := range line {
		if unicode.IsControl(c) {
			line[i] = ' '
		}
	}
	if len(line) > maxWarning {
		line = append(line[:maxWarning-1], '…')
	}
	return string(line)
}

// judged decides what neither webhook needs to look into; for the rest it calls judge.
func judged(judge func(req *admission.Request, object, old *subject) admission.Response) admission.HandlerFunc {
	return func(_ context.Context, req admission.Request) admission.Response {
		if req.Resource.Group != group || req.Resource.Resource != "taskruns" {
			return refused(metav1.Status{
				Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest,
				Message: "this webhook reviews taskruns.orchestrator.io only: mend the rules of the webhook configuration",
			})
		}
		isWrite := req.Operation == admissionv1.Create || req.Operation == admissionv1.Update
		if !isWrite || req.SubResource != "" || len(req.Object.Raw) == 0 {
			return allowed()
		}
		// what is malformed is for the schema to refuse, with an exact message
		object := decode(req.Object.Raw)
		if object == nil {
			return allowed()
		}
		var old *subject
		if len(req.OldObject.Raw) > 0 {
			old = decode(req.OldObject.Raw)
		}
		return judge(&req, object, old)
	}
}

var mutateHandler = judged(func(req *admission.Request, object, old *subject) admission.Response {
	if req.Operation == admissionv1.Update && old == nil {
		return allowed()
	}
	m := mutate(object, old, writer{req.UserInfo.Username, req.Options.Raw})
	response := allowed()
	response.Patches, response.Warnings = m.patch, m.warnings
	return response
})

var validateHandler = judged(func(req *admission.Request, object, old *subject) admission.Response {
	found := validate(object, old, len(req.Object.Raw))
	if len(found) == 0 {
		response := allowed()
		if version := object.Spec.ContextVersion; version != nil {
			response.AuditAnnotations = map[string]string{"context-version": strconv.FormatInt(*version, 10)}
		}
		return response
	}
	causes := make([]metav1.StatusCause, len(found))
	for i, v := range found {
		causes[i] = metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: v.field, Message: v.message}
	}
	return refused(metav1.Status{
		Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: found.String(),
		Details: &metav1.StatusDetails{Group: group, Kind: "TaskRun", Name: object.Metadata.Name, Causes: causes},
	})
})

func allowed() admission.Response {
	return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{Allowed: true}}
}

func refused(status metav1.Status) admission.Response {
	status.Status = metav1.StatusFailure
	return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{Result: &status}}
}
