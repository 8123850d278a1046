{{/* The Deployment that ships, with the values of this release. */}}
{{- define "deployment" -}}
{{- $text := .Files.Get "files/deployment.yaml" | replace "taskrun-system" .Release.Namespace }}
{{- $deployment := index (splitList "\n---\n" $text) 0 | fromYaml }}
{{- $template := $deployment.spec.template }}
{{- $container := index $template.spec.containers 0 }}
{{- $image := .Values.image }}
{{- $tag := ternary (print "@" $image.digest) (print ":" (default .Chart.AppVersion $image.tag)) (ne $image.digest "") }}
{{- $_ := set $container "image" (print $image.repository $tag) }}
{{- $_ := set $container "args" (concat $container.args .Values.args) }}
{{- with .Values.namespaces }}
{{- $_ := set $container "env" (append $container.env (dict "name" "TASKRUN_NAMESPACE" "value" (join "," .))) }}
{{- end }}
{{- if .Values.certManager.enabled }}
{{- $_ := set $container "env" (append $container.env (dict "name" "TASKRUN_CERT_DIR" "value" "/certificate")) }}
{{- $mount := dict "name" "certificate" "mountPath" "/certificate" "readOnly" true }}
{{- $_ := set $container "volumeMounts" (list $mount) }}
{{- $volume := dict "name" "certificate" "secret" (dict "secretName" "taskrun-operator-cert") }}
{{- $_ := set $template.spec "volumes" (list $volume) }}
{{- end }}
{{- $_ := mustMergeOverwrite $container .Values.container }}
{{- $_ := mustMergeOverwrite $template .Values.podTemplate }}
{{- $_ := set $deployment.spec "replicas" .Values.replicas }}
{{- toYaml $deployment }}
{{- end }}

{{/* A pod's template like it, that runs another subcommand to its end: the context, its name and its arguments. */}}
{{- define "command" -}}
{{- $context := index . 0 }}
{{- $name := index . 1 }}
{{- $spec := (include "deployment" $context | fromYaml).spec.template.spec }}
{{- $container := omit (index $spec.containers 0) "ports" "startupProbe" "livenessProbe" "readinessProbe" }}
{{- $_ := set $container "args" (index . 2) }}
{{- $_ := set $spec "containers" (list $container) }}
{{- $_ := set $spec "serviceAccountName" $name }}
{{- $_ := set $spec "restartPolicy" "Never" }}
metadata:
  labels:
    app.kubernetes.io/name: {{ $name }}
spec:
  {{- omit $spec "topologySpreadConstraints" "terminationGracePeriodSeconds" | toYaml | nindent 2 }}
{{- end }}
