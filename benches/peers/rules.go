package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

const (
	group             = "orchestrator.io"
	finalizer         = "orchestrator.io/run-cleanup"
	changedBy         = "orchestrator.io/context-changed-by"
	removeFiles       = "orchestrator.io/remove-files"
	adopts            = "orchestrator.io/adopts-job"
	maxContentBytes   = 900 * 1024
	maxObjectBytes    = 1280 * 1024
	maxFiles          = 1000
	maxFilename       = 128
	maxServiceName    = 40
	maxEnv            = 64
	maxViolations     = 100
	maxID             = 1<<32 - 1
	reservedFilename  = "CLAUDE.md"
	blankPrefixLength = 128
)

// A violation is a rule that an object breaks.
type violation struct{ field, message string }

type violations []violation

func (v *violations) add(field, format string, args ...any) {
	switch {
	case len(*v) < maxViolations:
		*v = append(*v, violation{field, fmt.Sprintf(format, args...)})
	case len(*v) == maxViolations:
		*v = append(*v, violation{"spec", "breaks more rules than are told here: mend these first"})
	}
}

func (v violations) String() string {
	lines := make([]string, len(v))
	for i, one := range v {
		lines[i] = one.field + ": " + one.message
	}
	return strings.Join(lines, "; ")
}

// validate returns all that a new object (old is nil) or a change breaks. Rules of content judge only what changed.
func validate(object, old *subject, objectBytes int) violations {
	var found violations
	found.identity(object, old)
	found.version(object, old)
	found.files(object, old, objectBytes)
	found.env(object, old)
	return found
}

func (v *violations) identity(object, old *subject) {
	spec := object.Spec
	if (old == nil || !equal(old.Spec.TaskID, spec.TaskID)) && !isID(spec.TaskID) {
		v.add("spec.taskId", "must be a number from 1 to 4294967295")
	}
	if (old == nil || old.Spec.ServiceName != spec.ServiceName) && !isServiceName(spec.ServiceName) {
		v.add("spec.serviceName", "must be lower-case letters, digits and '-', at most %d long, beginning and ending with a letter or digit", maxServiceName)
	}
	if (old == nil || old.Spec.AgentName != spec.AgentName) && !isSubdomain(spec.AgentName) {
		v.add("spec.agentName", "must be the name of an Agent: lower-case letters, digits, '-' and '.'")
	}
	if old != nil {
		if old.Spec.TaskID != nil && !equal(old.Spec.TaskID, spec.TaskID) {
			v.add("spec.taskId", "is immutable: create another TaskRun for another task")
		}
		if old.Spec.ServiceName != "" && old.Spec.ServiceName != spec.ServiceName {
			v.add("spec.serviceName", "is immutable: create another TaskRun for another service")
		}
		return
	}
	if spec.TaskID != nil && isLabel(spec.ServiceName) {
		if right := "task-" + strconv.FormatInt(*spec.TaskID, 10); object.Metadata.Name != right {
			v.add("metadata.name", "must be \"%s\": one TaskRun a task", right)
		}
	}
	if job, ok := object.Metadata.Annotations[adopts]; ok && !isAdoption(job) {
		v.add("metadata.annotations["+adopts+"]", "must be NAME/UID of a Job, or NAME")
	}
}

func (v *violations) version(object, old *subject) {
	var version int64
	if object.Spec.ContextVersion != nil {
		version = *object.Spec.ContextVersion
	}
	if !isID(&version) {
		v.add("spec.contextVersion", "must be a number from 1 to 4294967295: leave it out, it is managed")
	}
	if old == nil || old.Spec.ContextVersion == nil {
		return
	}
	before := *old.Spec.ContextVersion
	next := successor(before)
	switch {
	case version == next:
	case !sameContent(object.Spec, old.Spec, nil):
		v.add("spec.contextVersion", "must be %d since the context changed: leave it out, it is managed", next)
	case version != before:
		v.add("spec.contextVersion", "must be %d, or %d to run the same context again", before, next)
	}
}

func (v *violations) files(object, old *subject, objectBytes int) {
	files := object.Spec.MarkdownFiles
	var before map[string]string
	if old != nil {
		before = make(map[string]string, len(old.Spec.MarkdownFiles))
		for i := range old.Spec.MarkdownFiles {
			before[old.Spec.MarkdownFiles[i].Filename] = old.Spec.MarkdownFiles[i].Content
		}
	}
	isChanged := func(f *file) bool {
		content, ok := before[f.Filename]
		return !ok || content != f.Content
	}
	changed := make([]bool, len(files))
	anyChanged, bytes := old == nil, 0
	for i := range files {
		changed[i] = isChanged(&files[i])
		anyChanged = anyChanged || changed[i]
		bytes += len(files[i].Content)
	}
	if len(files) == 0 && (old == nil || len(before) > 0) {
		v.add("spec.markdownFiles", "must have at least one file: the agent would have nothing to do")
	}
	if anyChanged && len(files) > maxFiles {
		v.add("spec.markdownFiles", "has %d files, at most %d are possible: put several into one", len(files), maxFiles)
	}
	seen := make(map[string]struct{}, len(files))
	for i := range files {
		_, isTwice := seen[files[i].Filename]
		seen[files[i].Filename] = struct{}{}
		if changed[i] || isTwice {
			v.file(i, &files[i], isTwice)
		}
	}
	if anyChanged && bytes > maxContentBytes {
		v.add("spec.markdownFiles", "contents have %d bytes, %d more than the %d that fit a ConfigMap: shorten them", bytes, bytes-maxContentBytes, maxContentBytes)
	}
	isNewEnv := func(e envVar) bool { return !slices.Contains(old.Spec.Env, e) }
	if (anyChanged || slices.ContainsFunc(object.Spec.Env, isNewEnv)) && objectBytes > maxObjectBytes {
		v.add("spec.markdownFiles", "the object has %d bytes as JSON, %d more than the %d that are safe to store: shorten files or variables (as JSON '<', '>' and '&' take six bytes)", objectBytes, objectBytes-maxObjectBytes, maxObjectBytes)
	}
}

func (v *violations) file(i int, f *file, isTwice bool) {
	path := fmt.Sprintf("spec.markdownFiles[%d].filename", i)
	if !isFilename(f.Filename) || len(f.Filename) > maxFilename {
		v.add(path, "%s must end in .md and be letters, digits, '.', '_' and '-', not beginning with '.', at most %d long", quote(f.Filename), maxFilename)
	}
	if len(f.Filename) == len(reservedFilename) && strings.EqualFold(f.Filename, reservedFilename) {
		v.add(path, "%s is reserved, since agents read a file of this name from their repository: choose another name", quote(f.Filename))
	}
	if isTwice {
		v.add(path, "%s stands twice: give each file a name of its own", quote(f.Filename))
	}
	if isBlank(f.Content) {
		v.add(fmt.Sprintf("spec.markdownFiles[%d].content", i), "%s is empty: white space, HTML comments, front matter and link definitions do not count; write what the agent needs to know, or leave the file out", quote(f.Filename))
	}
}

func (v *violations) env(object, old *subject) {
	env := object.Spec.Env
	before := map[string]struct{}{}
	if old != nil {
		for _, variable := range old.Spec.Env {
			before[variable.Name] = struct{}{}
		}
	}
	if len(env) > maxEnv && len(env) > len(before) {
		v.add("spec.env", "has %d variables, at most %d are possible", len(env), maxEnv)
	}
	seen := make(map[string]struct{}, len(env))
	for i, variable := range env {
		_, isTwice := seen[variable.Name]
		seen[variable.Name] = struct{}{}
		_, isOld := before[variable.Name]
		why := ""
		switch {
		case isTwice:
			why = "stands twice"
		case isOld:
		case isReservedEnvName(variable.Name):
			why = "is set by the operator: choose another name"
		case !isEnvName(variable.Name):
			why = "must be letters, digits and '_', not beginning with a digit"
		}
		if why != "" {
			v.add(fmt.Sprintf("spec.env[%d].name", i), "%s %s", quote(variable.Name), why)
		}
	}
}

func isID(id *int64) bool { return id != nil && *id >= 1 && *id <= maxID }

func isServiceName(name string) bool { return isLabel(name) && len(name) <= maxServiceName }

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLower(c byte) bool  { return 'a' <= c && c <= 'z' }
func isLetter(c byte) bool { return isLower(c | 0x20) }

// all tells whether all bytes of a name are legal. No byte of a character beyond ASCII is.
func all(name string, isLegal func(byte) bool) bool {
	for i := range len(name) {
		if !isLegal(name[i]) {
			return false
		}
	}
	return true
}

func isFilename(name string) bool {
	stem, ok := strings.CutSuffix(name, ".md")
	return ok && stem != "" && stem[0] != '.' && all(stem, func(c byte) bool {
		return isLetter(c) || isDigit(c) || c == '.' || c == '_' || c == '-'
	})
}

func isLabel(name string) bool {
	return name != "" && name[0] != '-' && name[len(name)-1] != '-' && all(name, func(c byte) bool {
		return isLower(c) || isDigit(c) || c == '-'
	})
}

func isSubdomain(name string) bool {
	if len(name) > 253 {
		return false
	}
	for part := range strings.SplitSeq(name, ".") {
		if !isLabel(part) {
			return false
		}
	}
	return true
}

func isEnvName(name string) bool {
	return name != "" && !isDigit(name[0]) && all(name, func(c byte) bool { return isLetter(c) || isDigit(c) || c == '_' })
}

func isReservedEnvName(name string) bool {
	switch name {
	case "TASK_ID", "SERVICE_NAME", "AGENT_NAME", "CONTEXT_VERSION", "CONTEXT_DIR":
		return true
	}
	return false
}

func isAdoption(annotation string) bool {
	job, uid, hasUID := strings.Cut(annotation, "/")
	isUID := len(uid) >= 1 && len(uid) <= 63 && all(uid, func(c byte) bool { return isLetter(c) || isDigit(c) || c == '-' })
	return isSubdomain(job) && (!hasUID || isUID)
}

// quote puts a name from outside on one line of bounded length, escaped as Rust does it.
func quote(name string) string {
	var b strings.Builder
	b.WriteByte('"')
	left := 2 * maxFilename
	for _, c := range name {
		if left--; left < 0 {
			break
		}
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == 0:
			b.WriteString(`\0`)
		case unicode.IsPrint(c) && !unicode.Is(unicode.Mn, c):
			b.WriteRune(c)
		default:
			fmt.Fprintf(&b, `\u{%x}`, c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

var commonMark = goldmark.DefaultParser()

// isBlank tells whether a reader of the markdown would see nothing.
func isBlank(markdown string) bool {
	body := withoutFrontMatter(markdown)
	// What shows up to a blank line shows in the whole, too, but for a link without text whose definition comes later.
	for length := blankPrefixLength; length < len(body); length *= 8 {
		end := strings.Index(body[length:], "\n\n")
		if end < 0 {
			break
		}
		if prefix := body[:length+end+1]; !strings.Contains(prefix, "][") && !showsNothing(prefix) {
			return false
		}
	}
	return showsNothing(body)
}

func showsNothing(markdown string) bool {
	source := []byte(markdown)
	var html []byte
	isEmpty := true
	_ = ast.Walk(commonMark.Parse(text.NewReader(source)), func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Text:
			isEmpty = isInvisible(resolved(n.Segment.Value(source), n.Parent()))
		case *ast.CodeBlock, *ast.FencedCodeBlock:
			isEmpty = isInvisible(n.Lines().Value(source))
		case *ast.HTMLBlock:
			html = append(html, n.Lines().Value(source)...)
			if n.HasClosure() {
				html = append(html, n.ClosureLine.Value(source)...)
			}
		case *ast.RawHTML:
			html = append(html, n.Segments.Value(source)...)
		case *ast.Image, *ast.AutoLink:
			isEmpty = false
		}
		if !isEmpty {
			return ast.WalkStop, nil
		}
		return ast.WalkContinue, nil
	})
	return isEmpty && isInvisible(withoutComments(html))
}

// resolved is a text with its character references carried out, which in code are none.
func resolved(value []byte, parent ast.Node) []byte {
	if parent.Kind() == ast.KindCodeSpan || bytes.IndexByte(value, '&') < 0 {
		return value
	}
	return util.ResolveEntityNames(util.ResolveNumericReferences(value))
}

// withoutFrontMatter cuts off YAML or TOML front matter, which only a file's very beginning can be.
func withoutFrontMatter(markdown string) string {
	body := strings.TrimLeft(markdown, "\ufeff")
	trimmed := func(line string) string { return strings.TrimRightFunc(line, unicode.IsSpace) }
	first, rest, ok := strings.Cut(body, "\n")
	fence := trimmed(first)
	if !ok || (fence != "---" && fence != "+++") {
		return body
	}
	end := 0
	for line := range strings.Lines(rest) {
		end += len(line)
		if line = trimmed(line); line == fence || (fence == "---" && line == "...") {
			return rest[end:]
		}
	}
	return body
}

// withoutComments drops comments from HTML; one that is never closed reaches to the end.
func withoutComments(html []byte) []byte {
	var kept []byte
	for {
		before, comment, ok := bytes.Cut(html, []byte("<!--"))
		kept = append(kept, before...)
		if !ok {
			return kept
		}
		if short, ok := bytes.CutPrefix(comment, []byte(">")); ok {
			html = short
		} else if short, ok := bytes.CutPrefix(comment, []byte("->")); ok {
			html = short
		} else {
			_, html, _ = bytes.Cut(comment, []byte("-->"))
		}
	}
}

func isInvisible(text []byte) bool {
	for len(text) > 0 {
		c, size := utf8.DecodeRune(text)
		if !unicode.IsSpace(c) && !unicode.IsControl(c) && !unicode.Is(ignorable, c) {
			return false
		}
		text = text[size:]
	}
	return true
}

// ignorable is Unicode's Default_Ignorable_Code_Point and the blank Braille pattern.
var ignorable = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0xad, Hi: 0xad, Stride: 1}, {Lo: 0x34f, Hi: 0x34f, Stride: 1}, {Lo: 0x61c, Hi: 0x61c, Stride: 1},
		{Lo: 0x115f, Hi: 0x1160, Stride: 1}, {Lo: 0x17b4, Hi: 0x17b5, Stride: 1}, {Lo: 0x180b, Hi: 0x180f, Stride: 1},
		{Lo: 0x200b, Hi: 0x200f, Stride: 1}, {Lo: 0x202a, Hi: 0x202e, Stride: 1}, {Lo: 0x2060, Hi: 0x206f, Stride: 1},
		{Lo: 0x2800, Hi: 0x2800, Stride: 1}, {Lo: 0x3164, Hi: 0x3164, Stride: 1}, {Lo: 0xfe00, Hi: 0xfe0f, Stride: 1},
		{Lo: 0xfeff, Hi: 0xfeff, Stride: 1}, {Lo: 0xffa0, Hi: 0xffa0, Stride: 1}, {Lo: 0xfff0, Hi: 0xfff8, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x1bca0, Hi: 0x1bca3, Stride: 1}, {Lo: 0x1d173, Hi: 0x1d17a, Stride: 1}, {Lo: 0xe0000, Hi: 0xe0fff, Stride: 1},
	},
	LatinOffset: 1,
}
