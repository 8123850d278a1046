package main

import (
	"cmp"
	"context"
	"encoding/json/v2"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Left out, since no benchmark meets it: deletion, cancel and suspend, newer versions, TTL, adopted and queued Jobs,
// workspaces, and the statuses of tasks that are stuck.

const (
	manager          = "taskrun-operator"
	releaseGate      = "orchestrator.io/release"
	requestIDs       = "orchestrator.io/request-ids"
	taskLabel        = "orchestrator.io/task"
	taskRunLabel     = "orchestrator.io/task-run"
	taskRunUIDLabel  = "orchestrator.io/task-run-uid"
	contextVolume    = "taskrun-context"
	defaultMount     = "/context"
	maxMessage       = 1024
	recheck          = 10 * time.Second
	minJobTTL        = 300
	defaultJobTTL    = 7 * 24 * 3600
	defaultDeadline  = 2 * 3600
	byTaskRun        = "taskRun"
	phasePending     = "Pending"
	phaseRunning     = "Running"
	outcomeSucceeded = "Succeeded"
	outcomeFailed    = "Failed"
	reasonStarting   = "Starting"
	reasonRunning    = "Running"
	reasonJobFailed  = "JobFailed"
	reasonAsExpected = "AsExpected"
)

var groupVersion = schema.GroupVersion{Group: group, Version: "v1"}

// A TaskRun as the controller reads it. It is never written as a whole.
type TaskRun struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              spec           `json:"spec"`
	Status            *TaskRunStatus `json:"status,omitempty"`
}

type TaskRunStatus struct {
	Phase              string             `json:"phase,omitempty"`
	JobName            string             `json:"jobName,omitempty"`
	Attempts           *int64             `json:"attempts,omitempty"`
	Message            string             `json:"message,omitempty"`
	LastUpdated        *metav1.Time       `json:"lastUpdated,omitempty"`
	ContextVersion     int64              `json:"contextVersion,omitempty"`
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	StartTime          *metav1.Time       `json:"startTime,omitempty"`
	CompletionTime     *metav1.Time       `json:"completionTime,omitempty"`
	Conditions         []metav1.Condition `json:"conditions"`
	Runs               []RunStatus        `json:"runs"`
}

type RunStatus struct {
	ContextVersion int64        `json:"contextVersion"`
	JobName        string       `json:"jobName,omitempty"`
	JobUID         types.UID    `json:"jobUid,omitempty"`
	Outcome        string       `json:"outcome,omitempty"`
	Attempts       *int64       `json:"attempts,omitempty"`
	PodUIDs        []types.UID  `json:"podUids,omitempty"`
	StartTime      *metav1.Time `json:"startTime,omitempty"`
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	Message        string       `json:"message,omitempty"`
	ChangedBy      string       `json:"changedBy,omitempty"`
}

type TaskRunList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []TaskRun `json:"items"`
}

type Agent struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              AgentSpec `json:"spec"`
}

type AgentSpec struct {
	JobTemplate      batchv1.JobTemplateSpec `json:"jobTemplate"`
	ContextMountPath string                  `json:"contextMountPath,omitempty"`
}

type AgentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []Agent `json:"items"`
}

func (t *TaskRun) DeepCopyObject() runtime.Object {
	out := &TaskRun{TypeMeta: t.TypeMeta, ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: t.Spec}
	// what the pointers and elements of the spec say is never changed
	out.Spec.MarkdownFiles, out.Spec.Env = slices.Clone(t.Spec.MarkdownFiles), slices.Clone(t.Spec.Env)
	if t.Status != nil {
		status := *t.Status
		status.Conditions, status.Runs = slices.Clone(status.Conditions), slices.Clone(status.Runs)
		for i := range status.Runs {
			status.Runs[i].PodUIDs = slices.Clone(status.Runs[i].PodUIDs)
		}
		out.Status = &status
	}
	return out
}

func (l *TaskRunList) DeepCopyObject() runtime.Object {
	out := &TaskRunList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: make([]TaskRun, len(l.Items))}
	for i := range l.Items {
		out.Items[i] = *l.Items[i].DeepCopyObject().(*TaskRun)
	}
	return out
}

func (a *Agent) DeepCopyObject() runtime.Object {
	return &Agent{TypeMeta: a.TypeMeta, ObjectMeta: *a.ObjectMeta.DeepCopy(), Spec: AgentSpec{
		JobTemplate: *a.Spec.JobTemplate.DeepCopy(), ContextMountPath: a.Spec.ContextMountPath,
	}}
}

func (l *AgentList) DeepCopyObject() runtime.Object {
	out := &AgentList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: make([]Agent, len(l.Items))}
	for i := range l.Items {
		out.Items[i] = *l.Items[i].DeepCopyObject().(*Agent)
	}
	return out
}

func (t *TaskRun) task() string {
	return t.Spec.ServiceName + "-" + strconv.FormatInt(ptr.Deref(t.Spec.TaskID, 0), 10)
}

func (t *TaskRun) version() int64 { return ptr.Deref(t.Spec.ContextVersion, 0) }

func (t *TaskRun) runName() string { return t.task() + "-v" + strconv.FormatInt(t.version(), 10) }

// run is that of the present version, if one was recorded.
func (t *TaskRun) run() *RunStatus {
	if t.Status != nil {
		for i := range t.Status.Runs {
			if t.Status.Runs[i].ContextVersion == t.version() {
				return &t.Status.Runs[i]
			}
		}
	}
	return nil
}

func (t *TaskRun) owns(object client.Object) bool {
	return slices.ContainsFunc(object.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return o.UID == t.UID })
}

func runController(ctx context.Context, config *rest.Config, concurrency int) error {
	config.QPS = -1
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, batchv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	scheme.AddKnownTypes(groupVersion, &TaskRun{}, &TaskRunList{}, &Agent{}, &AgentList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
	isTask, err := labels.NewRequirement(taskLabel, selection.Exists, nil)
	if err != nil {
		return err
	}
	ours := labels.NewSelector().Add(*isTask)
	// built-in types go as protobuf without more ado: the content type is left to the client
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:  scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
		Cache: cache.Options{
			// nothing that comes from the cache is changed here
			DefaultUnsafeDisableDeepCopy: ptr.To(true),
			DefaultTransform:             cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&TaskRun{}:     {Transform: pruneTaskRun},
				&batchv1.Job{}: {Label: ours, Transform: pruneJob},
				&corev1.Pod{}:  {Label: ours, Transform: prunePod},
			},
		},
	})
	if err != nil {
		return err
	}
	taskRunOf := func(object client.Object) []string { return []string{object.GetLabels()[taskRunLabel]} }
	if err := mgr.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, byTaskRun, taskRunOf); err != nil {
		return err
	}
	wakes := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []reconcile.Request {
		name := types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetLabels()[taskRunLabel]}
		if name.Name == "" {
			return nil
		}
		return []reconcile.Request{{NamespacedName: name}}
	})
	r := &reconciler{cached: mgr.GetClient(), live: mgr.GetAPIReader(), events: mgr.GetEventRecorder(manager)}
	if _, err := mgr.GetCache().GetInformer(ctx, &Agent{}); err != nil {
		return err
	}
	err = ctrl.NewControllerManagedBy(mgr).Named("taskrun").For(&TaskRun{}).
		Watches(&batchv1.Job{}, wakes).
		Watches(&corev1.Pod{}, wakes).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency}).
		Complete(r)
	if err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// No decision on a cached object needs more than this leaves.
func pruneTaskRun(object any) (any, error) {
	if t, ok := object.(*TaskRun); ok {
		t.ManagedFields, t.Spec.MarkdownFiles, t.Spec.Env = nil, nil, nil
		delete(t.Annotations, corev1.LastAppliedConfigAnnotation)
	}
	return object, nil
}

func pruneJob(object any) (any, error) {
	if j, ok := object.(*batchv1.Job); ok {
		j.ManagedFields, j.Annotations = nil, nil
		j.Spec.Template = corev1.PodTemplateSpec{}
	}
	return object, nil
}

func prunePod(object any) (any, error) {
	if p, ok := object.(*corev1.Pod); ok {
		p.ManagedFields, p.Annotations, p.Spec = nil, nil, corev1.PodSpec{}
		p.Status.Conditions = nil
	}
	return object, nil
}

type reconciler struct {
	cached client.Client
	live   client.Reader
	events events.EventRecorder
	// By uid, the resourceVersion of our last write: older copies are not worth a look. The newer one wakes us.
	written sync.Map
}

func (r *reconciler) note(object client.Object) {
	r.written.Store(object.GetUID(), object.GetResourceVersion())
}

func (r *reconciler) isStale(object client.Object) bool {
	version, ok := r.written.Load(object.GetUID())
	if !ok {
		return false
	}
	seen, err := strconv.ParseUint(object.GetResourceVersion(), 10, 64)
	written, otherErr := strconv.ParseUint(version.(string), 10, 64)
	if err == nil && otherErr == nil && seen < written {
		return true
	}
	r.written.Delete(object.GetUID())
	return false
}

func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	again, err := r.reconcile(ctx, request.NamespacedName)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		// somebody else was faster: look anew, at once
		again, err = time.Millisecond, nil
	}
	return reconcile.Result{RequeueAfter: again}, client.IgnoreNotFound(err)
}

// reconcile lets the cache say whether there is anything to do. What is written is decided on live reads.
func (r *reconciler) reconcile(ctx context.Context, name types.NamespacedName) (time.Duration, error) {
	var t TaskRun
	if err := r.cached.Get(ctx, name, &t); err != nil {
		return 0, err
	}
	run := t.run()
	isLeftOut := t.DeletionTimestamp != nil || ptr.Deref(t.Spec.Suspend, false) || ptr.Deref(t.Spec.Cancel, false)
	if r.isStale(&t) || isLeftOut || (run != nil && run.Outcome != "") {
		return 0, nil
	}
	var job batchv1.Job
	err := r.cached.Get(ctx, types.NamespacedName{Namespace: t.Namespace, Name: t.runName()}, &job)
	if client.IgnoreNotFound(err) != nil {
		return 0, err
	}
	hasJob := err == nil
	switch {
	case hasJob && r.isStale(&job):
		return 0, nil
	case run != nil && !hasJob:
		return 0, nil
	case run != nil:
		return 0, r.follow(ctx, &t, run, &job)
	case hasJob && !isKnown(&job):
		// the Job controller's first write to it wakes us
		return 0, nil
	}
	return r.start(ctx, name, hasJob)
}

// start makes the objects of a version or, where the Job controller knows the Job, records and releases it. A Job that the
// cache does not have is not asked for: making it would be a conflict.
func (r *reconciler) start(ctx context.Context, name types.NamespacedName, hasJob bool) (time.Duration, error) {
	var t TaskRun
	if err := r.live.Get(ctx, name, &t); err != nil {
		return 0, err
	}
	if t.run() != nil || t.DeletionTimestamp != nil {
		return 0, nil
	}
	found := validate(&subject{Metadata: &metadata{Name: t.Name}, Spec: &t.Spec}, nil, 0)
	if len(found) > 0 {
		return 0, reconcile.TerminalError(fmt.Errorf("invalid: %s", found))
	}
	var job batchv1.Job
	if hasJob {
		if err := r.live.Get(ctx, types.NamespacedName{Namespace: t.Namespace, Name: t.runName()}, &job); err != nil {
			return 0, err
		}
	}
	if hasJob && !t.owns(&job) {
		return 0, reconcile.TerminalError(fmt.Errorf("Job %s is not this TaskRun's", job.Name))
	}
	if hasJob && (!isKnown(&job) || job.DeletionTimestamp != nil) {
		return 0, nil
	}
	isAlone, err := r.isAlone(ctx, &t, &job, hasJob)
	if err != nil || !isAlone {
		return recheck, err
	}
	if hasJob {
		return 0, r.record(ctx, &t, &job)
	}
	var agent Agent
	if err := r.cached.Get(ctx, types.NamespacedName{Namespace: t.Namespace, Name: t.Spec.AgentName}, &agent); err != nil {
		if apierrors.IsNotFound(err) {
			return recheck, nil
		}
		return 0, err
	}
	made, err := buildJob(&t, &agent)
	if err != nil {
		return 0, reconcile.TerminalError(err)
	}
	if err := r.createConfigMap(ctx, &t); err != nil {
		return 0, err
	}
	return 0, r.cached.Create(ctx, made, client.FieldOwner(manager))
}

// isAlone tells whether no other run of the task is going on. Before there is a Job no pod need be looked for.
func (r *reconciler) isAlone(ctx context.Context, t *TaskRun, job *batchv1.Job, withPods bool) (bool, error) {
	ofTask := client.MatchingLabels{taskLabel: t.task()}
	var jobs batchv1.JobList
	if err := r.live.List(ctx, &jobs, client.InNamespace(t.Namespace), ofTask); err != nil {
		return false, err
	}
	for i := range jobs.Items {
		if condition, _ := end(&jobs.Items[i]); condition == nil && jobs.Items[i].Name != t.runName() {
			return false, nil
		}
	}
	if !withPods {
		return true, nil
	}
	var pods corev1.PodList
	if err := r.live.List(ctx, &pods, client.InNamespace(t.Namespace), ofTask); err != nil {
		return false, err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		isGated := slices.ContainsFunc(pod.Spec.SchedulingGates, func(g corev1.PodSchedulingGate) bool { return g.Name == releaseGate })
		if !isOf(pod, job.UID) && !hasEnded(pod) && !isGated {
			return false, nil
		}
	}
	return true, nil
}

// createConfigMap leaves one that is there and ours as it is: it is immutable.
func (r *reconciler) createConfigMap(ctx context.Context, t *TaskRun) error {
	made := buildConfigMap(t)
	err := r.cached.Create(ctx, made, client.FieldOwner(manager))
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	there := metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}}
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(made), &there); err != nil {
		return err
	}
	if !t.owns(&there) {
		return reconcile.TerminalError(fmt.Errorf("ConfigMap %s is not this TaskRun's", made.Name))
	}
	return nil
}

// record makes this Job the version's run, and then lets it start.
func (r *reconciler) record(ctx context.Context, t *TaskRun, job *batchv1.Job) error {
	now := metav1.Now()
	run := RunStatus{
		ContextVersion: t.version(), JobName: job.Name, JobUID: job.UID, StartTime: &now,
		ChangedBy: cut(t.Annotations[changedBy], 256),
	}
	next := t.nextStatus(run, phasePending, reasonStarting, fmt.Sprintf("Job %s is about to start", job.Name), now)
	if err := r.writeStatus(ctx, t, next); err != nil {
		return err
	}
	return r.release(ctx, job)
}

// release lets the recorded Job start, if it is as it was when it was read.
func (r *reconciler) release(ctx context.Context, job *batchv1.Job) error {
	if !ptr.Deref(job.Spec.Suspend, false) {
		return nil
	}
	gates := slices.DeleteFunc(slices.Clone(job.Spec.Template.Spec.SchedulingGates), func(g corev1.PodSchedulingGate) bool { return g.Name == releaseGate })
	type object = map[string]any
	patch, err := json.Marshal(object{
		"metadata": object{"uid": job.UID, "resourceVersion": job.ResourceVersion},
		"spec":     object{"suspend": false, "template": object{"spec": object{"schedulingGates": gates}}},
	})
	if err != nil {
		return err
	}
	released := metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, Name: job.Name},
	}
	if err := r.cached.Patch(ctx, &released, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(manager)); err != nil {
		return err
	}
	r.note(&released)
	return nil
}

// follow writes what the run's Job and pods say, if the status does not say so already.
func (r *reconciler) follow(ctx context.Context, t *TaskRun, run *RunStatus, job *batchv1.Job) error {
	if job.UID != run.JobUID {
		return nil
	}
	condition, _ := end(job)
	if condition == nil && ptr.Deref(job.Spec.Suspend, false) {
		var live batchv1.Job
		if err := r.live.Get(ctx, client.ObjectKeyFromObject(job), &live); err != nil || live.UID != run.JobUID {
			return err
		}
		return r.release(ctx, &live)
	}
	var pods corev1.PodList
	inCache := []client.ListOption{client.InNamespace(t.Namespace), client.MatchingFields{byTaskRun: t.Name}}
	if err := r.cached.List(ctx, &pods, inCache...); err != nil {
		return err
	}
	if condition == nil {
		// if the copy is old, this is a conflict
		if next := t.standing(run, job, pods.Items); next != nil {
			return r.writeStatus(ctx, t, next)
		}
		return nil
	}
	var live TaskRun
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(t), &live); err != nil {
		return err
	}
	if run = live.run(); run == nil || run.Outcome != "" {
		return nil
	}
	var liveJob batchv1.Job
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(job), &liveJob); err != nil || liveJob.UID != run.JobUID {
		return err
	}
	if condition, _ = end(&liveJob); condition != nil {
		// how it ended may stand in pods that the cache does not have yet
		pods = corev1.PodList{}
		if err := r.live.List(ctx, &pods, client.InNamespace(t.Namespace), client.MatchingLabels{taskLabel: t.task()}); err != nil {
			return err
		}
	}
	if next := live.standing(run, &liveJob, pods.Items); next != nil {
		return r.writeStatus(ctx, &live, next)
	}
	return nil
}

// writeStatus asks for no more of the result than its metadata: the whole has the markdown.
func (r *reconciler) writeStatus(ctx context.Context, t *TaskRun, status *TaskRunStatus) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": t.ResourceVersion}, "status": status,
	})
	if err != nil {
		return err
	}
	written := metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: groupVersion.String(), Kind: "TaskRun"},
		ObjectMeta: metav1.ObjectMeta{Namespace: t.Namespace, Name: t.Name},
	}
	if err := r.cached.Status().Patch(ctx, &written, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(manager)); err != nil {
		return err
	}
	r.note(&written)
	if t.Status == nil || t.Status.Phase != status.Phase || status.Phase == phasePending {
		reason := cmp.Or(status.Phase, phasePending)
		if status.Phase == phasePending {
			reason = reasonStarting
		}
		r.events.Eventf(t, nil, corev1.EventTypeNormal, reason, "Reconcile", "version %d: %s", t.version(), status.Message)
	}
	return nil
}

// standing is the status that the run should have, nil if it has it.
func (t *TaskRun) standing(before *RunStatus, job *batchv1.Job, pods []corev1.Pod) *TaskRunStatus {
	run := *before
	pods = slices.DeleteFunc(slices.Clone(pods), func(p corev1.Pod) bool { return !isOf(&p, job.UID) })
	started := 0
	for i := range pods {
		if !hasStarted(&pods[i]) {
			continue
		}
		started++
		if !slices.Contains(run.PodUIDs, pods[i].UID) {
			run.PodUIDs = append(slices.Clip(run.PodUIDs), pods[i].UID)
			run.Attempts = ptr.To(ptr.Deref(run.Attempts, 0) + 1)
		}
	}
	now := metav1.Now()
	phase, reason, message := phasePending, reasonStarting, fmt.Sprintf("Job %s is about to start", job.Name)
	if condition, outcome := end(job); condition != nil {
		phase, reason, message = outcome, outcome, lastWord(pods)
		if outcome == outcomeFailed {
			reason = cmp.Or(condition.Reason, reasonJobFailed)
			message = strings.TrimSuffix(cmp.Or(condition.Message, "the Job failed")+"; "+message, "; ")
		}
		message = cut(cmp.Or(message, fmt.Sprintf("Job %s succeeded", job.Name)), maxMessage)
		run.Outcome, run.Message, run.PodUIDs = outcome, message, nil
		run.CompletionTime = &now
		if !condition.LastTransitionTime.IsZero() {
			run.CompletionTime = &condition.LastTransitionTime
		}
	} else if isAlive := func(p corev1.Pod) bool { return hasStarted(&p) && !hasEnded(&p) }; slices.ContainsFunc(pods, isAlive) || (started > 0 && started == len(pods)) {
		phase, reason, message = phaseRunning, reasonRunning, fmt.Sprintf("Job %s is running", job.Name)
	}
	if next := t.nextStatus(run, phase, reason, message, now); !reflect.DeepEqual(next.told(), t.Status.told()) {
		return next
	}
	return nil
}

// told is the status but for the time of its last change.
func (s *TaskRunStatus) told() TaskRunStatus {
	told := *s
	told.LastUpdated = nil
	return told
}

func (t *TaskRun) nextStatus(run RunStatus, phase, reason, message string, now metav1.Time) *TaskRunStatus {
	old := ptr.Deref(t.Status, TaskRunStatus{})
	next := &TaskRunStatus{
		Phase: phase, JobName: run.JobName, Attempts: run.Attempts, Message: message, LastUpdated: &now,
		ContextVersion: run.ContextVersion, ObservedGeneration: t.Generation,
		StartTime: run.StartTime, CompletionTime: run.CompletionTime,
	}
	for _, condition := range []struct {
		kind string
		on   bool
	}{
		{"Complete", phase == outcomeSucceeded},
		{"Failed", phase == outcomeFailed},
		{"Suspended", false},
		{"Reconciling", phase != outcomeSucceeded && phase != outcomeFailed},
		{"Stalled", phase == outcomeFailed},
	} {
		c := metav1.Condition{
			Type: condition.kind, Status: metav1.ConditionFalse, Reason: reasonAsExpected,
			ObservedGeneration: t.Generation, LastTransitionTime: now,
		}
		if condition.on {
			c.Status, c.Reason, c.Message = metav1.ConditionTrue, reason, message
		}
		if i := slices.IndexFunc(old.Conditions, func(o metav1.Condition) bool { return o.Type == c.Type && o.Status == c.Status }); i >= 0 {
			c.LastTransitionTime = old.Conditions[i].LastTransitionTime
		}
		next.Conditions = append(next.Conditions, c)
	}
	next.Runs = slices.DeleteFunc(slices.Clone(old.Runs), func(r RunStatus) bool { return r.ContextVersion == run.ContextVersion })
	next.Runs = append(next.Runs, run)
	return next
}

// isKnown tells whether the Job controller has written the Job: from then on it makes no more pods of older ones.
func isKnown(job *batchv1.Job) bool {
	return job.Status.StartTime != nil || len(job.Status.Conditions) > 0
}

func end(job *batchv1.Job) (*batchv1.JobCondition, string) {
	for i := range job.Status.Conditions {
		switch c := &job.Status.Conditions[i]; {
		case c.Status != corev1.ConditionTrue:
		case c.Type == batchv1.JobComplete:
			return c, outcomeSucceeded
		case c.Type == batchv1.JobFailed:
			return c, outcomeFailed
		}
	}
	return nil, ""
}

func isOf(pod *corev1.Pod, job types.UID) bool {
	return slices.ContainsFunc(pod.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == "Job" && o.UID == job })
}

func hasStarted(pod *corev1.Pod) bool {
	return pod.Status.Phase != "" && pod.Status.Phase != corev1.PodPending
}

func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// lastWord is what the containers of the last pod said at their end.
func lastWord(pods []corev1.Pod) string {
	if len(pods) == 0 {
		return ""
	}
	last := slices.MaxFunc(pods, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	var words []string
	for _, status := range slices.Concat(last.Status.InitContainerStatuses, last.Status.ContainerStatuses) {
		ended := status.State.Terminated
		if ended == nil {
			continue
		}
		text := strings.TrimSpace(ended.Message)
		if ended.ExitCode != 0 {
			why := fmt.Sprintf("container %s ended with exit code %d", status.Name, ended.ExitCode)
			if ended.Reason != "" && ended.Reason != "Error" {
				why += " (" + ended.Reason + ")"
			}
			text = strings.TrimSuffix(why+": "+text, ": ")
		}
		if text != "" {
			words = append(words, text)
		}
	}
	return strings.Join(words, "; ")
}

// cut is the text's beginning that takes at most so many bytes as the API server's JSON.
func cut(text string, most int) string {
	for i, c := range text {
		size := len(string(c))
		if c < ' ' || strings.ContainsRune("<>&\"\\\u007f\u2028\u2029", c) {
			size = 6
		}
		if most -= size; most < 0 {
			return text[:i]
		}
	}
	return text
}

func (t *TaskRun) labels() map[string]string {
	return map[string]string{
		"task-id":                      strconv.FormatInt(*t.Spec.TaskID, 10),
		"service-name":                 t.Spec.ServiceName,
		"context-version":              strconv.FormatInt(t.version(), 10),
		"app.kubernetes.io/name":       "taskrun",
		"app.kubernetes.io/instance":   t.task(),
		"app.kubernetes.io/managed-by": manager,
		taskLabel:                      t.task(),
		taskRunLabel:                   t.Name,
		taskRunUIDLabel:                string(t.UID),
	}
}

func (t *TaskRun) runMetadata() metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: t.runName(), Namespace: t.Namespace, Labels: t.labels(),
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: groupVersion.String(), Kind: "TaskRun", Name: t.Name, UID: t.UID, Controller: ptr.To(true),
		}},
	}
}

// buildConfigMap has the version's files, and who added which.
func buildConfigMap(t *TaskRun) *corev1.ConfigMap {
	made := &corev1.ConfigMap{ObjectMeta: t.runMetadata(), Data: map[string]string{}, Immutable: ptr.To(true)}
	ids := map[string]string{}
	for _, f := range t.Spec.MarkdownFiles {
		made.Data[f.Filename] = f.Content
		if f.RequestID != nil {
			ids[f.Filename] = *f.RequestID
		}
	}
	if known, err := json.Marshal(ids, json.Deterministic(true)); err == nil && len(ids) > 0 && len(known) <= 128*1024 {
		made.Annotations = map[string]string{requestIDs: string(known)}
	}
	return made
}

// buildJob makes the version's Job: suspended and behind a gate, so that nothing starts before its release.
func buildJob(t *TaskRun, agent *Agent) (*batchv1.Job, error) {
	template := agent.Spec.JobTemplate.DeepCopy()
	job, pod := &template.Spec, &template.Spec.Template.Spec
	for field, isSet := range map[string]bool{
		"selector":               job.Selector != nil,
		"manualSelector":         job.ManualSelector != nil,
		"managedBy":              job.ManagedBy != nil,
		"suspend":                job.Suspend != nil,
		"completionMode":         ptr.Deref(job.CompletionMode, "") == batchv1.IndexedCompletion,
		"template.spec.nodeName": pod.NodeName != "",
	} {
		if isSet {
			return nil, fmt.Errorf("spec.jobTemplate.spec.%s: must be left out, the operator sets it", field)
		}
	}
	job.Parallelism, job.Completions, job.Suspend = ptr.To[int32](1), ptr.To[int32](1), ptr.To(true)
	job.PodReplacementPolicy = ptr.To(batchv1.Failed)
	job.BackoffLimit = cmp.Or(job.BackoffLimit, ptr.To[int32](0))
	job.ActiveDeadlineSeconds = cmp.Or(job.ActiveDeadlineSeconds, ptr.To[int64](defaultDeadline))
	job.TTLSecondsAfterFinished = ptr.To(max(ptr.Deref(job.TTLSecondsAfterFinished, defaultJobTTL), minJobTTL))
	pod.RestartPolicy = corev1.RestartPolicyNever
	pod.AutomountServiceAccountToken = cmp.Or(pod.AutomountServiceAccountToken, ptr.To(false))
	pod.SchedulingGates = append(pod.SchedulingGates, corev1.PodSchedulingGate{Name: releaseGate})
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: contextVolume, VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: t.runName()}},
	}})
	mount := corev1.VolumeMount{Name: contextVolume, MountPath: cmp.Or(agent.Spec.ContextMountPath, defaultMount), ReadOnly: true}
	// ours come first, so that the Agent's own may refer to them
	env := []corev1.EnvVar{
		{Name: "TASK_ID", Value: strconv.FormatInt(*t.Spec.TaskID, 10)},
		{Name: "SERVICE_NAME", Value: t.Spec.ServiceName},
		{Name: "AGENT_NAME", Value: t.Spec.AgentName},
		{Name: "CONTEXT_VERSION", Value: strconv.FormatInt(t.version(), 10)},
		{Name: "CONTEXT_DIR", Value: mount.MountPath},
	}
	for _, variable := range t.Spec.Env {
		// "$$" is a literal "$"
		env = append(env, corev1.EnvVar{Name: variable.Name, Value: strings.ReplaceAll(variable.Value, "$", "$$")})
	}
	for _, containers := range [][]corev1.Container{pod.Containers, pod.InitContainers} {
		for i := range containers {
			c := &containers[i]
			c.VolumeMounts = append(c.VolumeMounts, mount)
			own := slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool {
				return slices.ContainsFunc(env, func(ours corev1.EnvVar) bool { return ours.Name == e.Name })
			})
			c.Env = slices.Concat(env, own)
		}
	}
	job.Template.Labels = with(job.Template.Labels, t.labels())
	made := &batchv1.Job{ObjectMeta: t.runMetadata(), Spec: *job}
	made.Labels, made.Annotations = with(template.Labels, made.Labels), template.Annotations
	return made, nil
}

func with(labels, ours map[string]string) map[string]string {
	if labels == nil {
		return ours
	}
	maps.Copy(labels, ours)
	return labels
}
