{{/* The Deployment that ships, with the values of this release. */}}
{{- define "deployment" -}}
{{- $file := required "its links are missing: make a package of the chart by `helm package`, in a clone" (.Files.Get "files/deployment.yaml") }}
{{- $text := $file | replace "taskrun-system" .Release.Namespace }}
{{- $deployment := index (splitList "\n---\n" $text) 0 | fromYaml }}
{{- $template := $deployment.spec.template }}
{{- $container := index $template.spec.containers 0 }}
{{- $image := .Values.image }}
{{- $tag := ternary (print "@" $image.digest) (print ":" (default .Chart.AppVersion $image.tag)) (ne $image.digest "") }}
{{- $_ := set $container "image" (print $image.repository $tag) }}
{{- $_ := set $container "args" (concat $container.args .Values.args) }}
{{- $_ := set $container "env" (concat $container.env .Values.env) }}
{{- with .Values.namespaces }}
{{- $_ := set $container "env" (append $container.env (dict "name" "TASKRUN_NAMESPACE" "value" (join "," .))) }}
{{- end }}
{{- $volumes := list }}
{{- $volumeMounts := list }}
{{- if .Values.certManager.enabled }}
{{- $_ := set $container "env" (append $container.env (dict "name" "TASKRUN_CERT_DIR" "value" "/certificate")) }}
{{- $volumeMounts = list (dict "name" "certificate" "mountPath" "/certificate" "readOnly" true) }}
{{- $volumes = list (dict "name" "certificate" "secret" (dict "secretName" "taskrun-operator-cert")) }}
{{- end }}
{{- with concat $volumes .Values.volumes }}
{{- $_ := set $template.spec "volumes" . }}
{{- end }}
{{- with concat $volumeMounts .Values.volumeMounts }}
{{- $_ := set $container "volumeMounts" . }}
{{- end }}
{{- $_ := mustMergeOverwrite $container .Values.container }}
{{- $_ := mustMergeOverwrite $template .Values.podTemplate }}
{{- $_ := set $deployment.spec "replicas" .Values.replicas }}
{{- toYaml $deployment }}
{{- end }}

{{/*
A pod's template like it, that runs another subcommand to its end: the context, its name and its arguments. It has nothing
that it could wait for, or that is meant for `run`.
*/}}
{{- define "command" -}}
{{- $context := index . 0 }}
{{- $name := index . 1 }}
{{- $spec := (include "deployment" $context | fromYaml).spec.template.spec }}
{{- $container := omit (index $spec.containers 0) "ports" "startupProbe" "livenessProbe" "readinessProbe" "volumeMounts" }}
{{- $env := list }}
{{- range $container.env }}
{{- if hasPrefix "POD_" .name }}
{{- $env = append $env . }}
{{- end }}
{{- end }}
{{- $_ := set $container "env" $env }}
{{- $_ := set $container "args" (index . 2) }}
{{- $_ := set $spec "containers" (list $container) }}
{{- $_ := set $spec "serviceAccountName" $name }}
{{- $_ := set $spec "restartPolicy" "Never" }}
metadata:
  labels:
    app.kubernetes.io/name: {{ $name }}
spec:
  {{- omit $spec "volumes" "topologySpreadConstraints" "terminationGracePeriodSeconds" | toYaml | nindent 2 }}
{{- end }}
