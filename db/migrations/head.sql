CREATE TABLE ai_api_keys (
	id INTEGER NOT NULL,
	name VARCHAR(128) NOT NULL,
	sha256 VARCHAR(64) NOT NULL,
	hint VARCHAR(16) NOT NULL,
	team_id INTEGER NOT NULL,
	project_id INTEGER,
	user_id INTEGER,
	models JSON NOT NULL,
	providers JSON NOT NULL,
	refusal_status SMALLINT NOT NULL,
	expires_at_ms BIGINT,
	revoked_at_ms BIGINT,
	source VARCHAR(16) NOT NULL,
	created_at_ms BIGINT NOT NULL,
	CONSTRAINT pk_ai_api_keys PRIMARY KEY (id),
	CONSTRAINT fk_ai_api_keys_team_id FOREIGN KEY(team_id) REFERENCES ai_teams (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_api_keys_project_id FOREIGN KEY(project_id) REFERENCES ai_projects (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_api_keys_user_id FOREIGN KEY(user_id) REFERENCES ai_users (id) ON DELETE RESTRICT,
	CONSTRAINT uq_ai_api_keys_name UNIQUE (name),
	CONSTRAINT uq_ai_api_keys_sha256 UNIQUE (sha256)
);
CREATE TABLE ai_audit_log (
	id INTEGER NOT NULL,
	at_ms BIGINT NOT NULL,
	who VARCHAR(128) NOT NULL,
	origin VARCHAR(128) NOT NULL,
	action VARCHAR(32) NOT NULL,
	target VARCHAR(512) NOT NULL,
	"before" JSON,
	"after" JSON,
	CONSTRAINT pk_ai_audit_log PRIMARY KEY (id)
);
CREATE TABLE ai_budget_alert_configs (
	id INTEGER NOT NULL,
	budget_id INTEGER NOT NULL,
	kind VARCHAR(32) NOT NULL,
	threshold BIGINT NOT NULL,
	CONSTRAINT pk_ai_budget_alert_configs PRIMARY KEY (id),
	CONSTRAINT fk_ai_budget_alert_configs_budget_id FOREIGN KEY(budget_id) REFERENCES ai_budgets (id) ON DELETE RESTRICT,
	CONSTRAINT uq_ai_budget_alert_configs_budget_id_kind_threshold UNIQUE (budget_id, kind, threshold)
);
CREATE TABLE ai_budget_alert_deliveries (
	alert_id VARCHAR(36) NOT NULL,
	event VARCHAR(8) NOT NULL,
	channel VARCHAR(64) NOT NULL,
	state VARCHAR(12) NOT NULL,
	attempts INTEGER NOT NULL,
	since_ms BIGINT NOT NULL,
	next_at_ms BIGINT NOT NULL,
	done_at_ms BIGINT,
	error VARCHAR(200) NOT NULL,
	CONSTRAINT pk_ai_budget_alert_deliveries PRIMARY KEY (alert_id, event, channel),
	CONSTRAINT fk_ai_budget_alert_deliveries_alert_id FOREIGN KEY(alert_id) REFERENCES ai_budget_alerts (id) ON DELETE CASCADE
);
CREATE TABLE ai_budget_alerts (
	id VARCHAR(36) NOT NULL,
	identity VARCHAR(256) NOT NULL,
	kind VARCHAR(32) NOT NULL,
	severity VARCHAR(8) NOT NULL,
	scope VARCHAR(512) NOT NULL,
	summary VARCHAR(1024) NOT NULL,
	facts JSON NOT NULL,
	budget_id INTEGER,
	window_starts_at BIGINT,
	host_id VARCHAR(64) NOT NULL,
	raised_at_ms BIGINT NOT NULL,
	ended_at_ms BIGINT,
	CONSTRAINT pk_ai_budget_alerts PRIMARY KEY (id),
	CONSTRAINT fk_ai_budget_alerts_budget_id FOREIGN KEY(budget_id) REFERENCES ai_budgets (id) ON DELETE RESTRICT,
	CONSTRAINT uq_ai_budget_alerts_identity UNIQUE (identity)
);
CREATE TABLE ai_budget_leases (
	window_id INTEGER NOT NULL,
	epoch_id INTEGER NOT NULL,
	granted BIGINT NOT NULL,
	spent BIGINT NOT NULL,
	wanted BIGINT NOT NULL,
	ticket BIGINT NOT NULL,
	CONSTRAINT pk_ai_budget_leases PRIMARY KEY (window_id, epoch_id),
	CONSTRAINT fk_ai_budget_leases_window_id FOREIGN KEY(window_id) REFERENCES ai_budget_windows (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_budget_leases_epoch_id FOREIGN KEY(epoch_id) REFERENCES ai_control_epochs (id) ON DELETE RESTRICT,
	CONSTRAINT ck_ai_budget_leases_spent CHECK (spent <= granted)
);
CREATE TABLE ai_budget_raises (
	id INTEGER NOT NULL,
	budget_id INTEGER NOT NULL,
	amount BIGINT NOT NULL,
	from_ms BIGINT NOT NULL,
	until_ms BIGINT NOT NULL,
	made_by VARCHAR(128) NOT NULL,
	reason VARCHAR(512) NOT NULL,
	created_at_ms BIGINT NOT NULL,
	CONSTRAINT pk_ai_budget_raises PRIMARY KEY (id),
	CONSTRAINT fk_ai_budget_raises_budget_id FOREIGN KEY(budget_id) REFERENCES ai_budgets (id) ON DELETE RESTRICT
);
CREATE TABLE ai_budget_windows (
	id INTEGER NOT NULL,
	budget_id INTEGER NOT NULL,
	starts_at BIGINT NOT NULL,
	committed BIGINT NOT NULL,
	overage BIGINT NOT NULL,
	extra BIGINT NOT NULL,
	lowered_from BIGINT NOT NULL, spared BIGINT DEFAULT '0' NOT NULL,
	CONSTRAINT pk_ai_budget_windows PRIMARY KEY (id),
	CONSTRAINT fk_ai_budget_windows_budget_id FOREIGN KEY(budget_id) REFERENCES ai_budgets (id) ON DELETE RESTRICT,
	CONSTRAINT ck_ai_budget_windows_committed CHECK (committed >= 0),
	CONSTRAINT ck_ai_budget_windows_overage CHECK (overage >= 0),
	CONSTRAINT uq_ai_budget_windows_budget_id_starts_at UNIQUE (budget_id, starts_at)
);
CREATE TABLE ai_budgets (
	id INTEGER NOT NULL,
	identity VARCHAR(512) NOT NULL,
	scope_kind VARCHAR(16) NOT NULL,
	unit VARCHAR(16) NOT NULL,
	limit_value BIGINT NOT NULL,
	period VARCHAR(16) NOT NULL,
	timezone VARCHAR(64) NOT NULL,
	week_start SMALLINT NOT NULL,
	month_day SMALLINT NOT NULL,
	models JSON NOT NULL,
	providers JSON NOT NULL,
	options JSON NOT NULL,
	source VARCHAR(16) NOT NULL,
	created_at_ms BIGINT NOT NULL,
	tombstoned_at_ms BIGINT,
	CONSTRAINT pk_ai_budgets PRIMARY KEY (id),
	CONSTRAINT uq_ai_budgets_identity UNIQUE (identity)
);
CREATE TABLE ai_charge_set_windows (
	charge_set_id INTEGER NOT NULL,
	window_id INTEGER NOT NULL,
	CONSTRAINT pk_ai_charge_set_windows PRIMARY KEY (charge_set_id, window_id),
	CONSTRAINT fk_ai_charge_set_windows_charge_set_id FOREIGN KEY(charge_set_id) REFERENCES ai_charge_sets (id) ON DELETE CASCADE,
	CONSTRAINT fk_ai_charge_set_windows_window_id FOREIGN KEY(window_id) REFERENCES ai_budget_windows (id) ON DELETE RESTRICT
);
CREATE TABLE ai_charge_sets (
	id INTEGER NOT NULL,
	digest VARCHAR(64) NOT NULL,
	CONSTRAINT pk_ai_charge_sets PRIMARY KEY (id),
	CONSTRAINT uq_ai_charge_sets_digest UNIQUE (digest)
);
CREATE TABLE ai_control_epochs (
	id INTEGER NOT NULL,
	host_id VARCHAR(64) NOT NULL,
	boot_id VARCHAR(64) NOT NULL,
	state VARCHAR(8) NOT NULL,
	opened_at_ms BIGINT NOT NULL,
	seen_at_ms BIGINT NOT NULL,
	CONSTRAINT pk_ai_control_epochs PRIMARY KEY (id)
);
INSERT INTO "ai_control_epochs" VALUES(0,'','','open',0,0);
CREATE TABLE ai_cost_adjustments (
	call_id BLOB NOT NULL,
	repricing_id INTEGER,
	from_price_id INTEGER,
	to_price_id INTEGER,
	CONSTRAINT pk_ai_cost_adjustments PRIMARY KEY (call_id),
	CONSTRAINT fk_ai_cost_adjustments_call_id FOREIGN KEY(call_id) REFERENCES ai_usage_costs (call_id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_cost_adjustments_repricing_id FOREIGN KEY(repricing_id) REFERENCES ai_repricings (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_cost_adjustments_from_price_id FOREIGN KEY(from_price_id) REFERENCES ai_provider_model_costs (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_cost_adjustments_to_price_id FOREIGN KEY(to_price_id) REFERENCES ai_provider_model_costs (id) ON DELETE RESTRICT
);
CREATE TABLE ai_cost_analytics (
	shard VARCHAR(512) NOT NULL,
	hour BIGINT NOT NULL,
	host_id VARCHAR(64) NOT NULL,
	key_id INTEGER NOT NULL,
	organization_id INTEGER NOT NULL,
	team_id INTEGER NOT NULL,
	project_id INTEGER,
	user_id INTEGER,
	provider VARCHAR(64) NOT NULL,
	model VARCHAR(256) NOT NULL,
	calls BIGINT NOT NULL,
	input_tokens BIGINT NOT NULL,
	cache_read_tokens BIGINT NOT NULL,
	cache_write_tokens BIGINT NOT NULL,
	output_tokens BIGINT NOT NULL,
	reasoning_tokens BIGINT NOT NULL,
	cost_nano BIGINT NOT NULL, adjusted_nano BIGINT DEFAULT '0' NOT NULL, provider_cost_nano BIGINT DEFAULT '0' NOT NULL, drift_nano BIGINT DEFAULT '0' NOT NULL,
	CONSTRAINT pk_ai_cost_analytics PRIMARY KEY (shard),
	CONSTRAINT fk_ai_cost_analytics_key_id FOREIGN KEY(key_id) REFERENCES ai_api_keys (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_cost_analytics_organization_id FOREIGN KEY(organization_id) REFERENCES ai_organizations (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_cost_analytics_team_id FOREIGN KEY(team_id) REFERENCES ai_teams (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_cost_analytics_project_id FOREIGN KEY(project_id) REFERENCES ai_projects (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_cost_analytics_user_id FOREIGN KEY(user_id) REFERENCES ai_users (id) ON DELETE RESTRICT
);
CREATE TABLE ai_cost_days (
	shard VARCHAR(512) NOT NULL,
	day BIGINT NOT NULL,
	key_id INTEGER NOT NULL,
	organization_id INTEGER NOT NULL,
	team_id INTEGER NOT NULL,
	project_id INTEGER,
	user_id INTEGER,
	provider VARCHAR(64) NOT NULL,
	model VARCHAR(256) NOT NULL,
	calls BIGINT NOT NULL,
	input_tokens BIGINT NOT NULL,
	cache_read_tokens BIGINT NOT NULL,
	cache_write_tokens BIGINT NOT NULL,
	output_tokens BIGINT NOT NULL,
	reasoning_tokens BIGINT NOT NULL,
	cost_nano BIGINT NOT NULL,
	adjusted_nano BIGINT NOT NULL,
	provider_cost_nano BIGINT NOT NULL,
	drift_nano BIGINT NOT NULL,
	CONSTRAINT pk_ai_cost_days PRIMARY KEY (shard),
	CONSTRAINT fk_ai_cost_days_key_id FOREIGN KEY(key_id) REFERENCES ai_api_keys (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_cost_days_organization_id FOREIGN KEY(organization_id) REFERENCES ai_organizations (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_cost_days_team_id FOREIGN KEY(team_id) REFERENCES ai_teams (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_cost_days_project_id FOREIGN KEY(project_id) REFERENCES ai_projects (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_cost_days_user_id FOREIGN KEY(user_id) REFERENCES ai_users (id) ON DELETE RESTRICT
);
CREATE TABLE ai_cost_validations (
	id INTEGER NOT NULL,
	validated_at_ms BIGINT NOT NULL,
	source VARCHAR(16) NOT NULL,
	file_sha256 VARCHAR(64) NOT NULL,
	day VARCHAR(10) NOT NULL,
	model VARCHAR(256) NOT NULL,
	calls BIGINT NOT NULL,
	ledger_nano BIGINT NOT NULL,
	provider_nano BIGINT NOT NULL,
	threshold_percent VARCHAR(16) NOT NULL,
	exceeds BOOLEAN NOT NULL,
	CONSTRAINT pk_ai_cost_validations PRIMARY KEY (id),
	CONSTRAINT uq_ai_cost_validations_file_sha256_source_day_model UNIQUE (file_sha256, source, day, model)
);
CREATE TABLE ai_customer_budgets (
	budget_id INTEGER NOT NULL,
	template_id INTEGER NOT NULL,
	customer VARCHAR(128) NOT NULL,
	CONSTRAINT pk_ai_customer_budgets PRIMARY KEY (budget_id),
	CONSTRAINT fk_ai_customer_budgets_budget_id FOREIGN KEY(budget_id) REFERENCES ai_budgets (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_customer_budgets_template_id FOREIGN KEY(template_id) REFERENCES ai_budgets (id) ON DELETE RESTRICT,
	CONSTRAINT uq_ai_customer_budgets_template_id_customer UNIQUE (template_id, customer)
);
CREATE TABLE ai_folded_days (
	day INTEGER NOT NULL,
	folded_at_ms BIGINT NOT NULL,
	CONSTRAINT pk_ai_folded_days PRIMARY KEY (day)
);
CREATE TABLE ai_journal_offsets (
	journal_id BLOB NOT NULL,
	epoch_id INTEGER NOT NULL,
	segment INTEGER NOT NULL,
	"offset" BIGINT NOT NULL,
	finished BOOLEAN NOT NULL,
	truncated BOOLEAN NOT NULL,
	CONSTRAINT pk_ai_journal_offsets PRIMARY KEY (journal_id),
	CONSTRAINT fk_ai_journal_offsets_epoch_id FOREIGN KEY(epoch_id) REFERENCES ai_control_epochs (id) ON DELETE RESTRICT
);
CREATE TABLE ai_key_budgets (
	budget_id INTEGER NOT NULL,
	key_id INTEGER NOT NULL,
	CONSTRAINT pk_ai_key_budgets PRIMARY KEY (budget_id),
	CONSTRAINT fk_ai_key_budgets_budget_id FOREIGN KEY(budget_id) REFERENCES ai_budgets (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_key_budgets_key_id FOREIGN KEY(key_id) REFERENCES ai_api_keys (id) ON DELETE RESTRICT
);
CREATE TABLE ai_organization_budgets (
	budget_id INTEGER NOT NULL,
	organization_id INTEGER NOT NULL,
	CONSTRAINT pk_ai_organization_budgets PRIMARY KEY (budget_id),
	CONSTRAINT fk_ai_organization_budgets_budget_id FOREIGN KEY(budget_id) REFERENCES ai_budgets (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_organization_budgets_organization_id FOREIGN KEY(organization_id) REFERENCES ai_organizations (id) ON DELETE RESTRICT
);
CREATE TABLE ai_organizations (
	id INTEGER NOT NULL,
	name VARCHAR(128) NOT NULL,
	source VARCHAR(16) NOT NULL,
	created_at_ms BIGINT NOT NULL,
	tombstoned_at_ms BIGINT,
	CONSTRAINT pk_ai_organizations PRIMARY KEY (id),
	CONSTRAINT uq_ai_organizations_name UNIQUE (name)
);
CREATE TABLE ai_price_versions (
	id INTEGER NOT NULL,
	version VARCHAR(96) NOT NULL,
	table_id VARCHAR(96) NOT NULL,
	sha256 VARCHAR(64) NOT NULL,
	source VARCHAR(128) NOT NULL,
	effective_from VARCHAR(32) NOT NULL,
	overlays JSON NOT NULL,
	created_at_ms BIGINT NOT NULL,
	CONSTRAINT pk_ai_price_versions PRIMARY KEY (id),
	CONSTRAINT uq_ai_price_versions_version UNIQUE (version)
);
CREATE TABLE ai_project_budgets (
	budget_id INTEGER NOT NULL,
	project_id INTEGER NOT NULL,
	CONSTRAINT pk_ai_project_budgets PRIMARY KEY (budget_id),
	CONSTRAINT fk_ai_project_budgets_budget_id FOREIGN KEY(budget_id) REFERENCES ai_budgets (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_project_budgets_project_id FOREIGN KEY(project_id) REFERENCES ai_projects (id) ON DELETE RESTRICT
);
CREATE TABLE ai_projects (
	id INTEGER NOT NULL,
	team_id INTEGER NOT NULL,
	name VARCHAR(128) NOT NULL,
	source VARCHAR(16) NOT NULL,
	created_at_ms BIGINT NOT NULL,
	tombstoned_at_ms BIGINT,
	CONSTRAINT pk_ai_projects PRIMARY KEY (id),
	CONSTRAINT fk_ai_projects_team_id FOREIGN KEY(team_id) REFERENCES ai_teams (id) ON DELETE RESTRICT,
	CONSTRAINT uq_ai_projects_team_id_name UNIQUE (team_id, name)
);
CREATE TABLE ai_provider_model_costs (
	id INTEGER NOT NULL,
	price_version_id INTEGER NOT NULL,
	model VARCHAR(256) NOT NULL,
	entry JSON NOT NULL,
	CONSTRAINT pk_ai_provider_model_costs PRIMARY KEY (id),
	CONSTRAINT fk_ai_provider_model_costs_price_version_id FOREIGN KEY(price_version_id) REFERENCES ai_price_versions (id) ON DELETE RESTRICT,
	CONSTRAINT uq_ai_provider_model_costs_price_version_id_model UNIQUE (price_version_id, model)
);
CREATE TABLE ai_provider_objects (
	id INTEGER NOT NULL,
	provider VARCHAR(64) NOT NULL,
	account VARCHAR(16) NOT NULL,
	kind VARCHAR(8) NOT NULL,
	object_id VARCHAR(128) NOT NULL,
	noted_at_ms BIGINT NOT NULL,
	requests JSON,
	batch_id INTEGER,
	estimate JSON,
	result JSON,
	call_id BLOB,
	adjustment_id BLOB,
	ready BOOLEAN NOT NULL,
	CONSTRAINT pk_ai_provider_objects PRIMARY KEY (id),
	CONSTRAINT fk_ai_provider_objects_batch_id FOREIGN KEY(batch_id) REFERENCES ai_provider_objects (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_provider_objects_call_id FOREIGN KEY(call_id) REFERENCES ai_usage_costs (call_id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_provider_objects_adjustment_id FOREIGN KEY(adjustment_id) REFERENCES ai_usage_costs (call_id) ON DELETE RESTRICT,
	CONSTRAINT uq_ai_provider_objects_provider_account_kind_object_id UNIQUE (provider, account, kind, object_id),
	CONSTRAINT uq_ai_provider_objects_call_id UNIQUE (call_id),
	CONSTRAINT uq_ai_provider_objects_adjustment_id UNIQUE (adjustment_id)
);
CREATE TABLE ai_pruned_charges (
	charge_set_id INTEGER NOT NULL,
	usd BIGINT NOT NULL,
	tokens BIGINT NOT NULL,
	requests BIGINT NOT NULL,
	flagged_usd BIGINT NOT NULL,
	flagged_tokens BIGINT NOT NULL,
	flagged_requests BIGINT NOT NULL,
	raised_usd BIGINT NOT NULL,
	raised_tokens BIGINT NOT NULL,
	raised_requests BIGINT NOT NULL,
	CONSTRAINT pk_ai_pruned_charges PRIMARY KEY (charge_set_id),
	CONSTRAINT fk_ai_pruned_charges_charge_set_id FOREIGN KEY(charge_set_id) REFERENCES ai_charge_sets (id) ON DELETE RESTRICT
);
CREATE TABLE ai_refusals (
	shard VARCHAR(64) NOT NULL,
	hour BIGINT NOT NULL,
	organization VARCHAR(128) NOT NULL,
	team VARCHAR(128) NOT NULL,
	key_name VARCHAR(128) NOT NULL,
	provider VARCHAR(64) NOT NULL,
	model VARCHAR(256) NOT NULL,
	code VARCHAR(64) NOT NULL,
	scope VARCHAR(512) NOT NULL,
	calls BIGINT NOT NULL,
	last_at_ms BIGINT NOT NULL,
	CONSTRAINT pk_ai_refusals PRIMARY KEY (shard)
);
CREATE TABLE ai_repricings (
	id INTEGER NOT NULL,
	price_version_id INTEGER NOT NULL,
	since_ms BIGINT,
	until_ms BIGINT NOT NULL,
	restated BOOLEAN NOT NULL,
	asked JSON NOT NULL,
	started_at_ms BIGINT NOT NULL,
	finished_at_ms BIGINT,
	read_at_ms BIGINT,
	read_call_id BLOB,
	calls_adjusted BIGINT NOT NULL,
	adjusted_nano BIGINT NOT NULL, pruned_calls BIGINT DEFAULT '0' NOT NULL, pruned_nano BIGINT DEFAULT '0' NOT NULL,
	CONSTRAINT pk_ai_repricings PRIMARY KEY (id),
	CONSTRAINT fk_ai_repricings_price_version_id FOREIGN KEY(price_version_id) REFERENCES ai_price_versions (id) ON DELETE RESTRICT
);
CREATE TABLE ai_retentions (
	id INTEGER NOT NULL,
	horizon_ms BIGINT NOT NULL,
	begun_at_ms BIGINT NOT NULL,
	finished_at_ms BIGINT,
	calls BIGINT NOT NULL,
	cost_nano BIGINT NOT NULL,
	CONSTRAINT pk_ai_retentions PRIMARY KEY (id)
);
CREATE TABLE ai_revisions (
	id SMALLINT NOT NULL,
	revision BIGINT NOT NULL,
	CONSTRAINT pk_ai_revisions PRIMARY KEY (id)
);
INSERT INTO "ai_revisions" VALUES(1,1);
CREATE TABLE ai_tag_days (
	shard VARCHAR(512) NOT NULL,
	tag VARCHAR(128) NOT NULL,
	value VARCHAR(128) NOT NULL,
	organization_id INTEGER NOT NULL,
	team_id INTEGER NOT NULL,
	project_id INTEGER,
	calls BIGINT NOT NULL,
	input_tokens BIGINT NOT NULL,
	cache_read_tokens BIGINT NOT NULL,
	cache_write_tokens BIGINT NOT NULL,
	output_tokens BIGINT NOT NULL,
	reasoning_tokens BIGINT NOT NULL,
	cost_nano BIGINT NOT NULL,
	adjusted_nano BIGINT NOT NULL,
	provider_cost_nano BIGINT NOT NULL,
	drift_nano BIGINT NOT NULL,
	day BIGINT NOT NULL,
	CONSTRAINT pk_ai_tag_days PRIMARY KEY (shard),
	CONSTRAINT fk_ai_tag_days_organization_id FOREIGN KEY(organization_id) REFERENCES ai_organizations (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_tag_days_team_id FOREIGN KEY(team_id) REFERENCES ai_teams (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_tag_days_project_id FOREIGN KEY(project_id) REFERENCES ai_projects (id) ON DELETE RESTRICT
);
CREATE TABLE ai_tag_folds (
	id INTEGER NOT NULL,
	since_ms BIGINT NOT NULL,
	until_ms BIGINT NOT NULL,
	CONSTRAINT pk_ai_tag_folds PRIMARY KEY (id)
);
CREATE TABLE ai_tag_hours (
	shard VARCHAR(512) NOT NULL,
	tag VARCHAR(128) NOT NULL,
	value VARCHAR(128) NOT NULL,
	organization_id INTEGER NOT NULL,
	team_id INTEGER NOT NULL,
	project_id INTEGER,
	calls BIGINT NOT NULL,
	input_tokens BIGINT NOT NULL,
	cache_read_tokens BIGINT NOT NULL,
	cache_write_tokens BIGINT NOT NULL,
	output_tokens BIGINT NOT NULL,
	reasoning_tokens BIGINT NOT NULL,
	cost_nano BIGINT NOT NULL,
	adjusted_nano BIGINT NOT NULL,
	provider_cost_nano BIGINT NOT NULL,
	drift_nano BIGINT NOT NULL,
	hour BIGINT NOT NULL,
	CONSTRAINT pk_ai_tag_hours PRIMARY KEY (shard),
	CONSTRAINT fk_ai_tag_hours_organization_id FOREIGN KEY(organization_id) REFERENCES ai_organizations (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_tag_hours_team_id FOREIGN KEY(team_id) REFERENCES ai_teams (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_tag_hours_project_id FOREIGN KEY(project_id) REFERENCES ai_projects (id) ON DELETE RESTRICT
);
CREATE TABLE ai_tag_names (
	tag VARCHAR(128) NOT NULL,
	wide BOOLEAN NOT NULL,
	CONSTRAINT pk_ai_tag_names PRIMARY KEY (tag)
);
CREATE TABLE ai_team_budgets (
	budget_id INTEGER NOT NULL,
	team_id INTEGER NOT NULL,
	CONSTRAINT pk_ai_team_budgets PRIMARY KEY (budget_id),
	CONSTRAINT fk_ai_team_budgets_budget_id FOREIGN KEY(budget_id) REFERENCES ai_budgets (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_team_budgets_team_id FOREIGN KEY(team_id) REFERENCES ai_teams (id) ON DELETE RESTRICT
);
CREATE TABLE ai_teams (
	id INTEGER NOT NULL,
	organization_id INTEGER NOT NULL,
	name VARCHAR(128) NOT NULL,
	source VARCHAR(16) NOT NULL,
	created_at_ms BIGINT NOT NULL,
	tombstoned_at_ms BIGINT,
	CONSTRAINT pk_ai_teams PRIMARY KEY (id),
	CONSTRAINT fk_ai_teams_organization_id FOREIGN KEY(organization_id) REFERENCES ai_organizations (id) ON DELETE RESTRICT,
	CONSTRAINT uq_ai_teams_organization_id_name UNIQUE (organization_id, name)
);
CREATE TABLE ai_usage_costs (
	call_id BLOB NOT NULL,
	at_ms BIGINT NOT NULL,
	key_id INTEGER NOT NULL,
	organization_id INTEGER NOT NULL,
	team_id INTEGER NOT NULL,
	project_id INTEGER,
	user_id INTEGER,
	charge_set_id INTEGER,
	adjusts BLOB,
	provider VARCHAR(64) NOT NULL,
	model VARCHAR(256) NOT NULL,
	route VARCHAR(64) NOT NULL,
	stream BOOLEAN NOT NULL,
	http_status SMALLINT NOT NULL,
	ending VARCHAR(16) NOT NULL,
	usage_source VARCHAR(12) NOT NULL,
	input_tokens BIGINT NOT NULL,
	cache_read_tokens BIGINT NOT NULL,
	cache_write_tokens BIGINT NOT NULL,
	output_tokens BIGINT NOT NULL,
	reasoning_tokens BIGINT NOT NULL,
	usage JSON,
	price_id INTEGER,
	cost_nano BIGINT NOT NULL,
	cost_items JSON,
	hold_nano BIGINT NOT NULL,
	charged_tokens BIGINT NOT NULL,
	charged_requests SMALLINT NOT NULL,
	duration_ms INTEGER NOT NULL,
	first_byte_ms INTEGER NOT NULL,
	client_retry SMALLINT NOT NULL,
	flags SMALLINT NOT NULL,
	error VARCHAR(64) NOT NULL,
	response_id VARCHAR(128) NOT NULL,
	tags JSON, provider_cost_nano BIGINT, drift_nano BIGINT,
	CONSTRAINT pk_ai_usage_costs PRIMARY KEY (call_id),
	CONSTRAINT fk_ai_usage_costs_key_id FOREIGN KEY(key_id) REFERENCES ai_api_keys (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_usage_costs_organization_id FOREIGN KEY(organization_id) REFERENCES ai_organizations (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_usage_costs_team_id FOREIGN KEY(team_id) REFERENCES ai_teams (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_usage_costs_project_id FOREIGN KEY(project_id) REFERENCES ai_projects (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_usage_costs_user_id FOREIGN KEY(user_id) REFERENCES ai_users (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_usage_costs_charge_set_id FOREIGN KEY(charge_set_id) REFERENCES ai_charge_sets (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_usage_costs_adjusts FOREIGN KEY(adjusts) REFERENCES ai_usage_costs (call_id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_usage_costs_price_id FOREIGN KEY(price_id) REFERENCES ai_provider_model_costs (id) ON DELETE RESTRICT
);
CREATE TABLE ai_user_budgets (
	budget_id INTEGER NOT NULL,
	user_id INTEGER NOT NULL,
	CONSTRAINT pk_ai_user_budgets PRIMARY KEY (budget_id),
	CONSTRAINT fk_ai_user_budgets_budget_id FOREIGN KEY(budget_id) REFERENCES ai_budgets (id) ON DELETE RESTRICT,
	CONSTRAINT fk_ai_user_budgets_user_id FOREIGN KEY(user_id) REFERENCES ai_users (id) ON DELETE RESTRICT
);
CREATE TABLE ai_users (
	id INTEGER NOT NULL,
	organization_id INTEGER NOT NULL,
	name VARCHAR(128) NOT NULL,
	email VARCHAR(254) NOT NULL,
	source VARCHAR(16) NOT NULL,
	created_at_ms BIGINT NOT NULL,
	tombstoned_at_ms BIGINT,
	CONSTRAINT pk_ai_users PRIMARY KEY (id),
	CONSTRAINT fk_ai_users_organization_id FOREIGN KEY(organization_id) REFERENCES ai_organizations (id) ON DELETE RESTRICT,
	CONSTRAINT uq_ai_users_organization_id_name UNIQUE (organization_id, name)
);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0011');
CREATE INDEX ix_ai_budget_leases_epoch_id ON ai_budget_leases (epoch_id);
CREATE INDEX ix_ai_journal_offsets_epoch_id ON ai_journal_offsets (epoch_id);
CREATE INDEX ix_ai_usage_costs_adjusts ON ai_usage_costs (adjusts) WHERE adjusts IS NOT NULL;
CREATE INDEX ix_ai_usage_costs_at ON ai_usage_costs (at_ms);
CREATE INDEX ix_ai_usage_costs_key_at ON ai_usage_costs (key_id, at_ms);
CREATE INDEX ix_ai_cost_analytics_hour ON ai_cost_analytics (hour);
CREATE INDEX ix_ai_provider_objects_noted_at_ms ON ai_provider_objects (noted_at_ms);
CREATE INDEX ix_ai_provider_objects_ready ON ai_provider_objects (ready);
CREATE INDEX ix_ai_budget_leases_ticket ON ai_budget_leases (ticket) WHERE ticket > 0;
CREATE INDEX ix_ai_provider_objects_batch_id ON ai_provider_objects (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX ix_ai_budget_alerts_raised_at_ms ON ai_budget_alerts (raised_at_ms);
CREATE INDEX ix_ai_budget_alert_deliveries_state_next_at_ms ON ai_budget_alert_deliveries (state, next_at_ms);
CREATE INDEX ix_ai_budget_raises_budget_id ON ai_budget_raises (budget_id);
CREATE INDEX ix_ai_cost_days_day ON ai_cost_days (day);
CREATE INDEX ix_ai_tag_hours_tag_hour ON ai_tag_hours (tag, hour);
CREATE INDEX ix_ai_tag_days_tag_day ON ai_tag_days (tag, day);
CREATE INDEX ix_ai_refusals_hour ON ai_refusals (hour);
