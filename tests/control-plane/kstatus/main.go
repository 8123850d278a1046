// Prints what others make of the object on standard input: without an argument one word, as kstatus computes it, by which
// Flux and helm --wait know whether an object is ready; with a script, what Argo CD's interpreter of Lua makes of it as a
// health check (https://argo-cd.readthedocs.io/en/stable/operator-manual/health/): a word and a message.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func main() {
	said, err := say(os.Stdin, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
	fmt.Println(said)
}

func say(input io.Reader, scripts []string) (string, error) {
	text, err := io.ReadAll(input)
	if err != nil {
		return "", err
	}
	object := unstructured.Unstructured{}
	if err := object.UnmarshalJSON(text); err != nil {
		return "", err
	}
	if len(scripts) > 0 {
		return health(scripts[0], object.Object)
	}
	result, err := status.Compute(&object)
	if err != nil {
		return "", err
	}
	return result.Status.String(), nil
}

// health runs a script with no more libraries than Argo CD gives it.
func health(script string, object map[string]any) (string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.StringLibName: lua.OpenString,
	} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	state.SetGlobal("obj", toLua(state, object))
	if err := state.DoString(script); err != nil {
		return "", err
	}
	health, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", errors.New("the script returns no table")
	}
	return fmt.Sprintf("%s %s", health.RawGetString("status"), health.RawGetString("message")), nil
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, value := range value {
			table.RawSetString(key, toLua(state, value))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, value := range value {
			table.Append(toLua(state, value))
		}
		return table
	case string:
		return lua.LString(value)
	case bool:
		return lua.LBool(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	default:
		return lua.LNil
	}
}
