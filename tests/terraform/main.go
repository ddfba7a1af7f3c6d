// Reads a folder of Terraform files by Terraform's own parser, looks every argument up in what the provider's
// documentation lists, fills the templates in, and prints each resource as JSON.
//
//	terraform FOLDER
//
// It is no `terraform validate`: that asks the provider itself, a program that has to be downloaded. The lists below are of
// the documentation of hashicorp/aws 5 and 6, for the resources used here.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// What a resource takes: whether the argument is required; and what others can read of it.
var resources = map[string]struct {
	arguments map[string]bool
	computed  map[string]string
}{
	"aws_iam_openid_connect_provider": {
		map[string]bool{"url": true, "client_id_list": true, "thumbprint_list": false, "tags": false},
		map[string]string{"arn": "arn:aws:iam::123456789012:oidc-provider/hallpass.example.com"},
	},
	"aws_iam_role": {
		map[string]bool{
			"assume_role_policy": true, "name": false, "name_prefix": false, "description": false, "path": false,
			"max_session_duration": false, "permissions_boundary": false, "force_detach_policies": false, "tags": false,
		},
		map[string]string{"arn": "arn:aws:iam::123456789012:role/payments-deploy", "id": "payments-deploy"},
	},
	"aws_iam_role_policy": {
		map[string]bool{"policy": true, "role": true, "name": false, "name_prefix": false},
		map[string]string{"id": "payments-deploy:releases"},
	},
}

var top = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
	{Type: "terraform"},
	{Type: "variable", LabelNames: []string{"name"}},
	{Type: "resource", LabelNames: []string{"type", "name"}},
	{Type: "output", LabelNames: []string{"name"}},
}}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: terraform FOLDER")
		os.Exit(2)
	}
	read, err := folder(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	encoder := json.NewEncoder(os.Stdout)
	if err := encoder.Encode(read); err != nil {
		os.Exit(1)
	}
}

// Every resource by `type.name`, its arguments evaluated.
func folder(path string) (map[string]map[string]json.RawMessage, error) {
	files, err := filepath.Glob(filepath.Join(path, "*.tf"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("%s: no Terraform files", path)
	}
	parser := hclparse.NewParser()
	var bodies []hcl.Body
	for _, file := range files {
		parsed, found := parser.ParseHCLFile(file)
		if found.HasErrors() {
			return nil, found
		}
		bodies = append(bodies, parsed.Body)
	}
	content, found := hcl.MergeBodies(bodies).Content(top)
	if found.HasErrors() {
		return nil, found
	}
	scope, err := scope(path, content)
	if err != nil {
		return nil, err
	}
	read := map[string]map[string]json.RawMessage{}
	for _, block := range content.Blocks {
		switch block.Type {
		case "resource":
			arguments, err := resource(block, scope)
			if err != nil {
				return nil, err
			}
			read[block.Labels[0]+"."+block.Labels[1]] = arguments
		case "output":
			attributes, found := block.Body.JustAttributes()
			if found.HasErrors() {
				return nil, found
			}
			value, ok := attributes["value"]
			if !ok {
				return nil, fmt.Errorf("%s: an output without a value", block.DefRange)
			}
			if _, found := value.Expr.Value(scope); found.HasErrors() {
				return nil, found
			}
		}
	}
	return read, nil
}

// Variables at their defaults, what resources can be asked, and the functions that the files use.
func scope(path string, content *hcl.BodyContent) (*hcl.EvalContext, error) {
	variables, known := map[string]cty.Value{}, map[string]map[string]cty.Value{}
	for _, block := range content.Blocks {
		switch block.Type {
		case "variable":
			attributes, found := block.Body.JustAttributes()
			if found.HasErrors() {
				return nil, found
			}
			for name := range attributes {
				if !strings.Contains(" description type default sensitive nullable ephemeral ", " "+name+" ") {
					return nil, fmt.Errorf("%s: a variable has no %q", block.DefRange, name)
				}
			}
			value, found := attributes["default"].Expr.Value(nil)
			if found.HasErrors() {
				return nil, found
			}
			variables[block.Labels[0]] = value
		case "resource":
			about, ok := resources[block.Labels[0]]
			if !ok {
				return nil, fmt.Errorf("%s: no list for %q", block.DefRange, block.Labels[0])
			}
			computed := map[string]cty.Value{}
			for name, value := range about.computed {
				computed[name] = cty.StringVal(value)
			}
			if known[block.Labels[0]] == nil {
				known[block.Labels[0]] = map[string]cty.Value{}
			}
			known[block.Labels[0]][block.Labels[1]] = cty.ObjectVal(computed)
		}
	}
	all := map[string]cty.Value{
		"var":  cty.ObjectVal(variables),
		"path": cty.ObjectVal(map[string]cty.Value{"module": cty.StringVal(path)}),
	}
	for kind, named := range known {
		all[kind] = cty.ObjectVal(named)
	}
	functions := map[string]function.Function{
		"jsonencode":   stdlib.JSONEncodeFunc,
		"templatefile": templatefile,
		"trimprefix":   stdlib.TrimPrefixFunc,
	}
	return &hcl.EvalContext{Variables: all, Functions: functions}, nil
}

func resource(block *hcl.Block, scope *hcl.EvalContext) (map[string]json.RawMessage, error) {
	attributes, found := block.Body.JustAttributes()
	if found.HasErrors() {
		return nil, found
	}
	about := resources[block.Labels[0]]
	for name, required := range about.arguments {
		if _, given := attributes[name]; required && !given {
			return nil, fmt.Errorf("%s: %s needs %q", block.DefRange, block.Labels[0], name)
		}
	}
	read := map[string]json.RawMessage{}
	for name, attribute := range attributes {
		if _, ok := about.arguments[name]; !ok {
			return nil, fmt.Errorf("%s: %s takes no %q", attribute.Range, block.Labels[0], name)
		}
		value, found := attribute.Expr.Value(scope)
		if found.HasErrors() {
			return nil, found
		}
		text, err := ctyjson.Marshal(value, value.Type())
		if err != nil {
			return nil, err
		}
		read[name] = text
	}
	return read, nil
}

// As Terraform has it: a file whose `${…}` are filled in from an object, and from nothing else.
var templatefile = function.New(&function.Spec{
	Params: []function.Parameter{
		{Name: "path", Type: cty.String},
		{Name: "vars", Type: cty.DynamicPseudoType},
	},
	Type: function.StaticReturnType(cty.String),
	Impl: func(arguments []cty.Value, _ cty.Type) (cty.Value, error) {
		path := arguments[0].AsString()
		text, err := os.ReadFile(path)
		if err != nil {
			return cty.NilVal, err
		}
		template, found := hclsyntax.ParseTemplate(text, path, hcl.InitialPos)
		if found.HasErrors() {
			return cty.NilVal, found
		}
		value, found := template.Value(&hcl.EvalContext{Variables: arguments[1].AsValueMap()})
		if found.HasErrors() {
			return cty.NilVal, found
		}
		return value, nil
	},
})
